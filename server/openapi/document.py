"""The OpenAPI document of the addresses that a server has."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any, Final

import msgspec

from server.config import VERSION
from server.inference.encoders import to_json
from server.openapi import compat_types, hyperpod, native_types, operations
from server.openapi.operation import ApiOperation

REF_TEMPLATE: Final = "#/components/schemas/{name}"
_SUMMARY: Final = """One door in front of foundation models: one answer, tokens as they come, or several models side by
side; and the jobs that build the clusters those run on. Where the server has API keys, send one as
`Authorization: Bearer KEY` or `X-API-Key: KEY`."""
_UNREFERENCED_TYPES: Final = (native_types.Event, compat_types.ChatCompletionChunk)
"""Types of stream events, which no body's schema refers to."""


@lru_cache(maxsize=2)
def encode_document(patterns: tuple[str, ...]) -> bytes:
    """Return the document as JSON, for a route table's patterns."""
    return to_json(build_document(patterns))


def build_document(patterns: Collection[str]) -> dict[str, Any]:
    """Build the document. `patterns` are those of the route table; operations without a route are left out."""
    served = served_paths(patterns)
    described = [operation for operation in all_operations() if strip_parameter_names(operation.path) in served]
    types = _unique_types(described)
    schemas, components = msgspec.json.schema_components([*types, *_UNREFERENCED_TYPES], ref_template=REF_TEMPLATE)
    by_type = dict(zip(map(repr, types), schemas, strict=False))
    paths: dict[str, dict[str, Any]] = {}
    for operation in described:
        entry = operation.to_openapi(lambda t: by_type[repr(t)])
        paths.setdefault(operation.path, {})[operation.method] = entry
    return {
        "openapi": "3.1.0",
        "info": {"title": "Forgeline", "version": VERSION, "description": _SUMMARY},
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in described)],
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


def all_operations() -> tuple[ApiOperation, ...]:
    return (*operations.OPERATIONS, *hyperpod.OPERATIONS)


def served_paths(patterns: Iterable[str]) -> set[str]:
    """The paths of a route table, with `{}` for each parameter."""
    templates = (pattern.rstrip("$").replace("\\.", ".").replace("([^/]+)", "{}") for pattern in patterns)
    return {path for template in templates for path in _expand_alternatives(template)}


def strip_parameter_names(path: str) -> str:
    return re.sub(r"{\w+}", "{}", path)


def _expand_alternatives(path: str) -> list[str]:
    """Expand `/api/(claude4|nova)` into two paths."""
    choice = re.search(r"\(([\w|.-]+)\)", path)
    return [path.replace(choice[0], name) for name in choice[1].split("|")] if choice else [path]


def _unique_types(described: Iterable[ApiOperation]) -> list[Any]:
    """Each type once, by its repr: not every type is hashable."""
    types = [
        type
        for operation in described
        for type in (operation.body_type, operation.error_type, *operation.response_types.values())
    ]
    return list({repr(type): type for type in types if type is not None and type is not str}.values())
