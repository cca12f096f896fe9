"""One method of an address, declared on the method of its handler, and its entry in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal, TypeVar

from msgspec import Meta

from pipeline.presets.store import NAME_PATTERN
from server.inference import encoders
from server.inference.response_types import ErrorBody

MethodT = TypeVar("MethodT", bound=Callable[..., Any])
SchemaLookup = Callable[[Any], dict[str, Any]]
"""Returns the schema of a type, most often a reference."""

COMMON_ERRORS: Final = (400, 401, 403, 408, 413)  # of every operation
INFERENCE_ERRORS: Final = (404, 429, 500, 503)
BODY_CONTENT_TYPES: Final = (encoders.JSON, encoders.MSGPACK)
_RETRY_AFTER_STATUSES: Final = {429, 503}  # statuses that may carry Retry-After

PresetName = Annotated[str, Meta(pattern=f"^{NAME_PATTERN.pattern}$", description="the name of a preset")]


@dataclass(frozen=True)
class ApiParameter:
    """A parameter of the query or a header. Those of the path are declared by the arguments of the method."""

    name: str
    description: str
    location: Literal["path", "query", "header"] = "query"
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


def count_parameter(name: str, description: str, maximum: int | None = None) -> ApiParameter:
    """A parameter of the query that is an integer, 0 or more."""
    bounds = {"minimum": 0} if maximum is None else {"minimum": 0, "maximum": maximum}
    return ApiParameter(name, description, schema={"type": "integer", **bounds})


@dataclass(frozen=True, kw_only=True)
class ApiOperation:
    """What a method takes and answers; a decorator that only marks the method, so that a request costs no more.

    `body` is the type of the request's body. `answers` are types by content type; `str` means text, or a stream.
    `errors` are the statuses beside `COMMON_ERRORS`; `error_body` is the type of every error's body.
    """

    tag: str
    summary: str
    description: str = ""
    parameters: tuple[ApiParameter, ...] = ()
    body: Any = None
    status: int = 200
    answers: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    errors: tuple[int, ...] = ()
    error_body: Any = ErrorBody

    def __call__(self, method: MethodT) -> MethodT:
        setattr(method, _ATTRIBUTE, self)
        return method

    @property
    def types(self) -> tuple[Any, ...]:
        """The types that its description refers to."""
        types = (self.body, self.error_body, *self.answers.values())
        return tuple(type for type in types if type is not None and type is not str)

    def to_openapi(
        self, operation_id: str, path_parameters: Iterable[ApiParameter], lookup: SchemaLookup, *, needs_key: bool
    ) -> dict[str, Any]:
        described: dict[str, Any] = {
            "operationId": operation_id,
            "tags": [self.tag],
            "summary": self.summary,
            "responses": self._responses(lookup),
        }
        if self.description:
            described["description"] = self.description
        if parameters := [*path_parameters, *self.parameters]:
            described["parameters"] = [_describe_parameter(parameter) for parameter in parameters]
        if self.body is not None:
            content = {content_type: {"schema": lookup(self.body)} for content_type in BODY_CONTENT_TYPES}
            described["requestBody"] = {"required": True, "content": content}
        if not needs_key:
            described["security"] = []
        return described

    def _responses(self, lookup: SchemaLookup) -> dict[str, Any]:
        success: dict[str, Any] = {
            "description": HTTPStatus(self.status).phrase,
            "headers": _describe_headers(self.headers),
        }
        if self.answers:
            success["content"] = {
                content_type: _describe_answer(type, lookup) for content_type, type in self.answers.items()
            }
        errors = {
            str(status): {
                "description": HTTPStatus(status).phrase,
                "headers": _describe_headers({"Retry-After": "seconds"} if status in _RETRY_AFTER_STATUSES else {}),
                "content": {content_type: {"schema": lookup(self.error_body)} for content_type in BODY_CONTENT_TYPES},
            }
            for status in sorted({*COMMON_ERRORS, *self.errors, *([] if self.body is None else [415])})
        }
        return {str(self.status): success, **errors}


_ATTRIBUTE: Final = "api_operation"


def operation_of(method: Callable[..., Any]) -> ApiOperation | None:
    """The operation that a method declares; None for one that is no part of the API, such as a page's file."""
    return getattr(method, _ATTRIBUTE, None)


def in_both_formats(type: Any) -> dict[str, Any]:
    """The answers of a method that sends this type as JSON or as MessagePack."""
    return dict.fromkeys(BODY_CONTENT_TYPES, type)


def _describe_answer(type: Any, lookup: SchemaLookup) -> dict[str, Any]:
    """Text has no schema: that of a stream would be taken for the schema of each event."""
    return {} if type is str else {"schema": lookup(type)}


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
