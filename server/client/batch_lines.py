"""The lines of a batch and their records, in our own format or in that of OpenAI's Batch API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

import msgspec

from server.client.api import Request, json_post
from server.client.errors import ApiError, ClientError

CHAT_PATH = "/v1/chat/completions"


class InvalidLine(ClientError):
    """The line can't be sent."""

    code = "invalid_line"


class BatchLine(Protocol):
    """A line that can be sent, and how its record is written."""

    @property
    def request(self) -> Request: ...

    def success_record(self, response: Mapping[str, Any]) -> dict[str, Any]: ...

    def error_record(self, error: ClientError) -> dict[str, Any]: ...


@dataclass(frozen=True)
class NativeBatchLine:
    """`{"id"?, "model"?, "text", "frames"?, …}`: the fields of a request, as /api/models/{name} takes them."""

    id: Any
    model: str
    request: Request

    def success_record(self, response: Mapping[str, Any]) -> dict[str, Any]:
        outcome = {"model": self.model, "response": response["response"], "metadata": response["metadata"]}
        return {**_id_field(self.id), **outcome}

    def error_record(self, error: ClientError) -> dict[str, Any]:
        return {**_id_field(self.id), "model": self.model, "error": str(error), "code": error.code}


@dataclass(frozen=True)
class OpenAIBatchLine:
    """`{"custom_id", "method": "POST", "url": "/v1/chat/completions", "body": {…}}`."""

    custom_id: Any
    request: Request

    def success_record(self, response: Mapping[str, Any]) -> dict[str, Any]:
        return {"custom_id": self.custom_id, "response": {"status_code": 200, "body": response}, "error": None}

    def error_record(self, error: ClientError) -> dict[str, Any]:
        return {"custom_id": self.custom_id, **_openai_error_fields(error)}


def parse_line(content: bytes, model: str | None) -> BatchLine:
    """Parse one line. `model`, if given, replaces the line's own. Raises InvalidLine."""
    if not content:
        raise InvalidLine("The line is too long.")
    try:
        fields = msgspec.json.decode(content, type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise InvalidLine(f"The line is no JSON object: {error}.") from error
    is_openai = "custom_id" in fields or "body" in fields
    return _parse_openai(fields, model) if is_openai else _parse_native(fields, model)


def invalid_line_record(content: bytes, error: ClientError) -> dict[str, Any]:
    """The record of a line that can't be sent, with the line's id if it has one."""
    try:
        fields = msgspec.json.decode(content, type=dict[str, Any])
    except (ValueError, RecursionError):
        fields = {}
    if "custom_id" in fields:
        return {"custom_id": fields["custom_id"], **_openai_error_fields(error)}
    return {**_id_field(fields.get("id")), **error.as_dict()}


def _parse_native(fields: dict[str, Any], model: str | None) -> NativeBatchLine:
    id, own_model = fields.pop("id", None), fields.pop("model", None)
    model = _validate_model(model or own_model)
    return NativeBatchLine(id, model, json_post(f"/api/models/{quote(model, safe='')}", fields))


def _parse_openai(fields: dict[str, Any], model: str | None) -> OpenAIBatchLine:
    body = fields.get("body")
    if fields.get("method", "POST") != "POST" or fields.get("url") != CHAT_PATH or not isinstance(body, dict):
        raise InvalidLine(f"Expected a line with method POST, url {CHAT_PATH} and a body.")
    if body.get("stream"):
        raise InvalidLine("body.stream: a batch takes whole answers only.")
    model = _validate_model(model or body.get("model"))
    return OpenAIBatchLine(fields.get("custom_id"), json_post(CHAT_PATH, {**body, "model": model}))


def _openai_error_fields(error: ClientError) -> dict[str, Any]:
    response = {"status_code": error.status, "body": error.body} if isinstance(error, ApiError) else None
    return {"response": response, "error": {"code": error.code, "message": str(error)}}


def _validate_model(name: Any) -> str:
    if not isinstance(name, str) or not name:
        raise InvalidLine("The line names no model; --model gives one to all lines.")
    return name


def _id_field(value: Any) -> dict[str, Any]:
    return {} if value is None else {"id": value}
