"""The whole description, of the addresses that this server has."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any, Final

import msgspec

from server.openapi import answers, chat_answers, hyperpod, operations
from server.openapi.operation import Operation
from server.wire import to_json

VERSION: Final = "0.1.0"
REFERENCE: Final = "#/components/schemas/{name}"
_ABOUT: Final = """One door in front of foundation models: one answer, tokens as they come, or several models side by
side; and the jobs that build the clusters those run on. Where the server has API keys, send one as
`Authorization: Bearer KEY` or `X-API-Key: KEY`."""
_BESIDE: Final = (answers.Event, chat_answers.ChatCompletionChunk)
"""Types of what streams carry, which no schema of a body refers to."""


@lru_cache(maxsize=2)
def encoded(patterns: tuple[str, ...]) -> bytes:
    """The description, as it is answered."""
    return to_json(describe(patterns))


def describe(patterns: Collection[str]) -> dict[str, Any]:
    """`patterns` are those of the route table: what it has not is left out."""
    served = served_paths(patterns)
    found = [one for one in all_operations() if anonymous(one.path) in served]
    types = _types(found)
    schemas, components = msgspec.json.schema_components([*types, *_BESIDE], ref_template=REFERENCE)
    by_type = dict(zip(map(repr, types), schemas, strict=False))
    paths: dict[str, dict[str, Any]] = {}
    for one in found:
        paths.setdefault(one.path, {})[one.method] = one.describe(lambda kind: by_type[repr(kind)])
    return {
        "openapi": "3.1.0",
        "info": {"title": "Forgeline", "version": VERSION, "description": _ABOUT},
        "tags": [{"name": group} for group in dict.fromkeys(one.group for one in found)],
        "security": [{"bearer": []}, {"key": []}, {}],
        "paths": paths,
        "components": {
            "schemas": {**components, "Event": schemas[len(types)]},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def all_operations() -> tuple[Operation, ...]:
    return (*operations.OPERATIONS, *hyperpod.OPERATIONS)


def served_paths(patterns: Iterable[str]) -> set[str]:
    """The addresses of a route table, their variable parts without names."""
    plain = (pattern.rstrip("$").replace("\\.", ".").replace("([^/]+)", "{}") for pattern in patterns)
    return {path for pattern in plain for path in _alternatives(pattern)}


def anonymous(path: str) -> str:
    return re.sub(r"{\w+}", "{}", path)


def _alternatives(path: str) -> list[str]:
    """`/api/(claude4|nova)` stands for two."""
    choice = re.search(r"\(([\w|.-]+)\)", path)
    return [path.replace(choice[0], one) for one in choice[1].split("|")] if choice else [path]


def _types(found: Iterable[Operation]) -> list[Any]:
    """Each type once; their repr is what tells them apart, for not all of them can be hashed."""
    types = [type for one in found for type in (one.body, one.error, *one.answers.values())]
    return list({repr(type): type for type in types if type is not None and type is not str}.values())
