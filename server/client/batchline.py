"""What a line of a batch asks, and what its record says: in our own shape, or in that of OpenAI's batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

import msgspec

from server.client.api import Request, posting
from server.client.errors import ClientError, Refused

CHAT = "/v1/chat/completions"


class WrongLine(ClientError):
    """This line can't be sent."""

    code = "invalid_line"


class Question(Protocol):
    """A line that can be sent. `answered` and `failed` are what its record says."""

    @property
    def request(self) -> Request: ...

    def answered(self, answer: Mapping[str, Any]) -> dict[str, Any]: ...

    def failed(self, error: ClientError) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Own:
    """`{"id"?, "model"?, "text", "frames"?, …}`: the fields of a request, as /api/models/{name} takes them."""

    id: Any
    model: str
    request: Request

    def answered(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        said = {"model": self.model, "response": answer["response"], "metadata": answer["metadata"]}
        return {**_named("id", self.id), **said}

    def failed(self, error: ClientError) -> dict[str, Any]:
        return {**_named("id", self.id), "model": self.model, "error": str(error), "code": error.code}


@dataclass(frozen=True)
class OpenAI:
    """`{"custom_id", "method": "POST", "url": "/v1/chat/completions", "body": {…}}`."""

    custom_id: Any
    request: Request

    def answered(self, answer: Mapping[str, Any]) -> dict[str, Any]:
        return {"custom_id": self.custom_id, "response": {"status_code": 200, "body": answer}, "error": None}

    def failed(self, error: ClientError) -> dict[str, Any]:
        return {"custom_id": self.custom_id, **_openai_failure(error)}


def read(content: bytes, model: str | None) -> Question:
    """The question that a line holds. Raises WrongLine. A `model` that is given takes the place of the line's own."""
    if not content:
        raise WrongLine("The line is too long.")
    try:
        value = msgspec.json.decode(content, type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise WrongLine(f"The line is no JSON object: {error}.") from error
    return _openai(value, model) if "custom_id" in value or "body" in value else _own(value, model)


def wrong(content: bytes, error: ClientError) -> dict[str, Any]:
    """The record of a line that can't be sent, under the name that it gives itself, if it does."""
    try:
        value = msgspec.json.decode(content, type=dict[str, Any])
    except (ValueError, RecursionError):
        value = {}
    if "custom_id" in value:
        return {"custom_id": value["custom_id"], **_openai_failure(error)}
    return {**_named("id", value.get("id")), **error.described()}


def _own(value: dict[str, Any], model: str | None) -> Own:
    id, named = value.pop("id", None), value.pop("model", None)
    model = _model(model or named)
    return Own(id, model, posting(f"/api/models/{quote(model, safe='')}", value))


def _openai(value: dict[str, Any], model: str | None) -> OpenAI:
    body = value.get("body")
    if value.get("method", "POST") != "POST" or value.get("url") != CHAT or not isinstance(body, dict):
        raise WrongLine(f"Expected a line with method POST, url {CHAT} and a body.")
    if body.get("stream"):
        raise WrongLine("body.stream: a batch takes whole answers only.")
    return OpenAI(value.get("custom_id"), posting(CHAT, {**body, "model": _model(model or body.get("model"))}))


def _openai_failure(error: ClientError) -> dict[str, Any]:
    response = {"status_code": error.status, "body": error.body} if isinstance(error, Refused) else None
    return {"response": response, "error": {"code": error.code, "message": str(error)}}


def _model(named: Any) -> str:
    if not isinstance(named, str) or not named:
        raise WrongLine("The line names no model; --model gives one to all lines.")
    return named


def _named(key: str, value: Any) -> dict[str, Any]:
    return {} if value is None else {key: value}
