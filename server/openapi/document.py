"""The OpenAPI document of a route table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from server.compat.response_types import ChatCompletionChunk
from server.config import VERSION
from server.inference.encoders import to_json
from server.inference.response_types import StreamEvent
from server.openapi.operation import ApiOperation
from server.openapi.route import Route

REF_TEMPLATE: Final = "#/components/schemas/{name}"
_SUMMARY: Final = """One door in front of foundation models: one answer, tokens as they come, or several models side by
side; and the jobs that build the clusters those run on. Where the server has API keys, send one as
`Authorization: Bearer KEY` or `X-API-Key: KEY`."""
_UNREFERENCED_TYPES: Final = (StreamEvent, ChatCompletionChunk)
"""Types of stream events, which no body's schema refers to."""


@lru_cache(maxsize=2)
def encode_document(routes: tuple[Route, ...]) -> bytes:
    """Return the document of these addresses as JSON."""
    return to_json(build_document(routes))


def build_document(routes: Sequence[Route]) -> dict[str, Any]:
    """Build the document of these addresses. Methods that declare no operation are left out."""
    described = [(route, *operation) for route in routes for operation in route.operations]
    operations = [operation for _, _, operation, _ in described]
    types = _unique_types(operations)
    schemas, components = msgspec.json.schema_components([*types, *_UNREFERENCED_TYPES], ref_template=REF_TEMPLATE)
    by_type = dict(zip(map(repr, types), schemas, strict=False))

    def lookup(described_type: Any) -> dict[str, Any]:
        return by_type[repr(described_type)]

    paths: dict[str, dict[str, Any]] = {}
    for route, method, operation, path_parameters in described:
        paths.setdefault(route.path, {})[method] = operation.to_openapi(
            f"{method} {route.path}", path_parameters, lookup, needs_key=route.needs_key
        )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Forgeline", "version": VERSION, "description": _SUMMARY},
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in operations)],
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


def _unique_types(operations: Iterable[ApiOperation]) -> list[Any]:
    """Each type once, by its repr: not every type is hashable."""
    return list({repr(type): type for operation in operations for type in operation.types}.values())
