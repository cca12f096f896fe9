"""One method of one address, and how its description is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Literal

from server import wire
from server.openapi.answers import ErrorBody

Schema = Callable[[Any], dict[str, Any]]
"""Gives the schema of a type, most often a reference."""

ALWAYS: Final = (400, 401, 403, 408, 413)
WITH_BODY: Final = (*ALWAYS, 415)
ASKS_MODELS: Final = (*WITH_BODY, 404, 429, 500, 503)
BODIES: Final = (wire.JSON, wire.MSGPACK)
_WAITS: Final = {429, 503}  # statuses that may come with Retry-After


@dataclass(frozen=True)
class Parameter:
    name: str
    description: str
    where: Literal["path", "query", "header"] = "path"
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True)
class Operation:
    """`answers` are types by content type; None: no body, `str`: text. `error` is the type of every error's body."""

    method: str
    path: str
    group: str
    summary: str
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Any = None
    body_kinds: tuple[str, ...] = BODIES
    status: int = 200
    answers: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[int, ...] = ALWAYS
    error: Any = ErrorBody
    error_kinds: tuple[str, ...] = BODIES
    needs_key: bool = True

    def describe(self, schema: Schema) -> dict[str, Any]:
        told: dict[str, Any] = {
            "operationId": f"{self.method} {self.path}",
            "tags": [self.group],
            "summary": self.summary,
            "responses": self._responses(schema),
        }
        if self.description:
            told["description"] = self.description
        if self.parameters:
            told["parameters"] = [_parameter(one) for one in self.parameters]
        if self.body is not None:
            told["requestBody"] = {
                "required": True,
                "content": {kind: {"schema": schema(self.body)} for kind in self.body_kinds},
            }
        if not self.needs_key:
            told["security"] = []
        return told

    def _responses(self, schema: Schema) -> dict[str, Any]:
        good: dict[str, Any] = {"description": HTTPStatus(self.status).phrase, "headers": _headers(self.headers)}
        if self.answers:
            good["content"] = {kind: _of(answer, schema) for kind, answer in self.answers.items()}
        failed = {
            str(status): {
                "description": HTTPStatus(status).phrase,
                "headers": _headers({"Retry-After": "seconds"} if status in _WAITS else {}),
                "content": {kind: {"schema": schema(self.error)} for kind in self.error_kinds},
            }
            for status in sorted(self.errors)
        }
        return {str(self.status): good, **failed}


def _of(answer: Any, schema: Schema) -> dict[str, Any]:
    """Text has no schema: one of a stream would be taken for that of each event."""
    return {} if answer is str else {"schema": schema(answer)}


def _parameter(one: Parameter) -> dict[str, Any]:
    told = {"name": one.name, "in": one.where, "description": one.description, "schema": dict(one.schema)}
    return {**told, "required": True} if one.where == "path" else told


def _headers(more: Mapping[str, str]) -> dict[str, Any]:
    described = {"X-Request-Id": "The request's id, the client's own if it is sane", **more}
    return {name: {"description": description, "schema": {"type": "string"}} for name, description in described.items()}
