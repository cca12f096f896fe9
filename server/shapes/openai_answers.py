"""OpenAI's Chat Completions, as they are answered: whole, in chunks, and as errors."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pipeline.errors import ForgelineError, InvalidRequest, RateLimited, UnknownModel
from pipeline.messages import Failure, Result, ToolCallPiece
from pipeline.streams import Complete, Record, Start
from server.errors import Unauthorized, describe, status_of
from server.wire import literal, to_json

_FINISH: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "other": "stop",
}
_CODES: Final = {UnknownModel: "model_not_found", Unauthorized: "invalid_api_key", RateLimited: "rate_limit_exceeded"}
_FIELD: Final = re.compile(r"([a-z_]+(?:\.[a-z_]+|\[\d+\])*): ")


def completion(result: Result, request_id: str) -> dict[str, Any]:
    """The whole answer."""
    response = result.envelope["response"]
    text = response["content"][0]["text"]
    message: dict[str, Any] = {"role": "assistant", "content": text or None if result.calls else text, "refusal": None}
    if result.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in result.calls
        ]
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _FINISH[response["stop_reason"]]}
    head = {"id": f"chatcmpl-{request_id}", "object": "chat.completion", "created": int(time.time())}
    usage = _usage(response["usage"])
    return {**head, "model": result.model, "choices": [choice], **({"usage": usage} if usage else {})}


class ChunkEncoder:
    """The events of a stream as `chat.completion.chunk`s, then `[DONE]`. An error in mid-stream is an `error`."""

    heartbeat = b": heartbeat\n\n"  # a comment, which every reader of SSE skips

    def __init__(self, request_id: str, model: str, *, include_usage: bool) -> None:
        self._head = {
            "id": f"chatcmpl-{request_id}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._include_usage = include_usage
        # A template for text, as for our own events: per token a dict and its encoding would cost three times as much.
        self._text = b"data: " + literal(self._head)[:-1] + b',"choices":[{"index":0,"delta":{"content":%b}'
        self._text += b',"logprobs":null,"finish_reason":null}]}\n\n'

    def encode(self, batch: Sequence[Record], first: int) -> bytes:
        return b"".join(
            self._text % to_json(record) if type(record) is str else self._encode(record) for record in batch
        )

    def _encode(self, record: Record) -> bytes:
        match record:
            case Start():
                return self._chunk({"role": "assistant", "content": "", "refusal": None})
            case ToolCallPiece():
                return self._chunk({"tool_calls": [_piece(record)]})
            case Result():
                return self._end(record.envelope["response"])
            case Failure():
                return b"data: %b\n\n" % to_json(error_content(record.error))
            case Complete():
                return b"data: [DONE]\n\n"
        return b""

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return b"data: %b\n\n" % to_json({**self._head, "choices": [choice]})

    def _end(self, response: Mapping[str, Any]) -> bytes:
        end = self._chunk({}, _FINISH[response["stop_reason"]])
        if self._include_usage:
            usage = {**self._head, "choices": [], "usage": _usage(response["usage"])}
            end += b"data: %b\n\n" % to_json(usage)
        return end


def error_content(error: ForgelineError) -> dict[str, Any]:
    """The body of an error."""
    message, status = describe(error)["error"], status_of(error)
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), error.code)
    field = _FIELD.match(message) if isinstance(error, InvalidRequest) else None
    return {"error": {"message": message, "type": _kind(status), "param": field and field[1], "code": code}}


def _kind(status: int) -> str:
    match status:
        case 401:
            return "authentication_error"
        case 403:
            return "permission_error"
        case 429:
            return "rate_limit_error"
        case _ if status < 500:
            return "invalid_request_error"
    return "server_error"


def list_models(names: Sequence[str], providers: Mapping[str, str]) -> dict[str, Any]:
    """A list of models that the clients of both shapes read: each finds its own fields."""
    return {
        "object": "list",
        "data": [describe_model(name, providers[name]) for name in names],
        "has_more": False,
        "first_id": names[0] if names else None,
        "last_id": names[-1] if names else None,
    }


def describe_model(name: str, provider: str) -> dict[str, Any]:
    """Nobody tells when a model was made, so it is given the beginning of time, as both APIs do."""
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": provider,
        "type": "model",
        "display_name": name,
        "created_at": "1970-01-01T00:00:00Z",
    }


def _piece(piece: ToolCallPiece) -> dict[str, Any]:
    if piece.id or piece.name:
        function = {"name": piece.name, "arguments": piece.arguments}
        return {"index": piece.index, "id": piece.id, "type": "function", "function": function}
    return {"index": piece.index, "function": {"arguments": piece.arguments}}


def _usage(usage: Mapping[str, int | None]) -> dict[str, Any] | None:
    """None where the provider did not count."""
    asked, answered = usage["input_tokens"], usage["output_tokens"]
    if asked is None or answered is None:
        return None
    told: dict[str, Any] = {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}
    if (cached := usage.get("cache_read_tokens")) is not None:
        told["prompt_tokens_details"] = {"cached_tokens": cached}
    return told
