"""One method of one address, and its entry in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final, Literal

from server.inference import encoders
from server.openapi.native_types import ErrorBody

SchemaLookup = Callable[[Any], dict[str, Any]]
"""Returns the schema of a type, most often a reference."""

COMMON_ERRORS: Final = (400, 401, 403, 408, 413)
BODY_ERRORS: Final = (*COMMON_ERRORS, 415)
INFERENCE_ERRORS: Final = (*BODY_ERRORS, 404, 429, 500, 503)
BODY_CONTENT_TYPES: Final = (encoders.JSON, encoders.MSGPACK)
_RETRY_AFTER_STATUSES: Final = {429, 503}  # statuses that may carry Retry-After


@dataclass(frozen=True)
class ApiParameter:
    name: str
    description: str
    location: Literal["path", "query", "header"] = "path"
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True)
class ApiOperation:
    """`response_types` are types by content type; `str` means text. `error_type` is the type of every error body."""

    method: str
    path: str
    tag: str
    summary: str
    description: str = ""
    parameters: tuple[ApiParameter, ...] = ()
    body_type: Any = None
    body_content_types: tuple[str, ...] = BODY_CONTENT_TYPES
    success_status: int = 200
    response_types: Mapping[str, Any] = field(default_factory=dict)
    response_headers: Mapping[str, str] = field(default_factory=dict)
    error_statuses: tuple[int, ...] = COMMON_ERRORS
    error_type: Any = ErrorBody
    error_content_types: tuple[str, ...] = BODY_CONTENT_TYPES
    requires_key: bool = True

    def to_openapi(self, lookup: SchemaLookup) -> dict[str, Any]:
        operation: dict[str, Any] = {
            "operationId": f"{self.method} {self.path}",
            "tags": [self.tag],
            "summary": self.summary,
            "responses": self._responses(lookup),
        }
        if self.description:
            operation["description"] = self.description
        if self.parameters:
            operation["parameters"] = [_describe_parameter(parameter) for parameter in self.parameters]
        if self.body_type is not None:
            operation["requestBody"] = {
                "required": True,
                "content": {
                    content_type: {"schema": lookup(self.body_type)} for content_type in self.body_content_types
                },
            }
        if not self.requires_key:
            operation["security"] = []
        return operation

    def _responses(self, lookup: SchemaLookup) -> dict[str, Any]:
        success: dict[str, Any] = {
            "description": HTTPStatus(self.success_status).phrase,
            "headers": _describe_headers(self.response_headers),
        }
        if self.response_types:
            success["content"] = {
                content_type: _media_type(type, lookup) for content_type, type in self.response_types.items()
            }
        failures = {
            str(status): {
                "description": HTTPStatus(status).phrase,
                "headers": _describe_headers({"Retry-After": "seconds"} if status in _RETRY_AFTER_STATUSES else {}),
                "content": {
                    content_type: {"schema": lookup(self.error_type)} for content_type in self.error_content_types
                },
            }
            for status in sorted(self.error_statuses)
        }
        return {str(self.success_status): success, **failures}


def _media_type(response_type: Any, lookup: SchemaLookup) -> dict[str, Any]:
    """Text has no schema: that of a stream would be taken for the schema of each event."""
    return {} if response_type is str else {"schema": lookup(response_type)}


def _describe_parameter(parameter: ApiParameter) -> dict[str, Any]:
    described = {
        "name": parameter.name,
        "in": parameter.location,
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }
    return {**described, "required": True} if parameter.location == "path" else described


def _describe_headers(headers: Mapping[str, str]) -> dict[str, Any]:
    descriptions = {"X-Request-Id": "The request's id, the client's own if it is sane", **headers}
    return {
        name: {"description": description, "schema": {"type": "string"}} for name, description in descriptions.items()
    }
