"""Render responses of OpenAI's Chat Completions API: whole completions, chunks, errors and the list of models."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pipeline.envelope import TokenUsage, safe_integer
from pipeline.errors import ForgelineError, InvalidRequest, RateLimited, UnknownModel
from pipeline.messages import Failure, Result, ToolCallDelta
from pipeline.streams import StreamComplete, StreamRecord, StreamStart
from server.errors import Unauthorized, error_fields, status_of
from server.inference.encoders import template_literal, to_json

_FINISH_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "other": "stop",
}
_ERROR_CODES: Final = {
    UnknownModel: "model_not_found",
    Unauthorized: "invalid_api_key",
    RateLimited: "rate_limit_exceeded",
}
_FIELD_PREFIX: Final = re.compile(r"([a-z_]+(?:\.[a-z_]+|\[\d+\])*): ")


def render_completion(result: Result, request_id: str) -> dict[str, Any]:
    """Render the whole completion."""
    response = result.envelope["response"]
    text = response["content"][0]["text"]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text or None if result.tool_calls else text,
        "refusal": None,
    }
    if result.tool_calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in result.tool_calls
        ]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": _FINISH_REASONS[response["stop_reason"]],
    }
    header = {"id": f"chatcmpl-{request_id}", "object": "chat.completion", "created": int(time.time())}
    usage = _render_usage(response["usage"])
    return {**header, "model": result.model, "choices": [choice], **({"usage": usage} if usage else {})}


class ChatChunkEncoder:
    """Encodes a stream's records as `chat.completion.chunk`s and `[DONE]`; a failure in mid-stream as an `error`."""

    heartbeat = b": heartbeat\n\n"  # an SSE comment

    def __init__(self, request_id: str, model: str, *, include_usage: bool) -> None:
        self._header = {
            "id": f"chatcmpl-{request_id}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._include_usage = include_usage
        # A template: encoding a dict per token is slower (docs/PERFORMANCE.md).
        self._text_template = (
            b"data: " + template_literal(self._header)[:-1] + b',"choices":[{"index":0,"delta":{"content":%b}'
        )
        self._text_template += b',"logprobs":null,"finish_reason":null}]}\n\n'

    def encode(self, batch: Sequence[StreamRecord], first: int) -> bytes:
        return b"".join(
            self._text_template % to_json(record) if type(record) is str else self._encode_record(record)
            for record in batch
        )

    def _encode_record(self, record: StreamRecord) -> bytes:
        match record:
            case StreamStart():
                return self._encode_chunk({"role": "assistant", "content": "", "refusal": None})
            case ToolCallDelta():
                return self._encode_chunk({"tool_calls": [_tool_call_delta(record)]})
            case Result():
                return self._encode_end(record.envelope["response"])
            case Failure():
                return b"data: %b\n\n" % to_json(render_error(record.error))
            case StreamComplete():
                return b"data: [DONE]\n\n"
        return b""

    def _encode_chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return b"data: %b\n\n" % to_json({**self._header, "choices": [choice]})

    def _encode_end(self, response: Mapping[str, Any]) -> bytes:
        end = self._encode_chunk({}, _FINISH_REASONS[response["stop_reason"]])
        if self._include_usage:
            usage = {**self._header, "choices": [], "usage": _render_usage(response["usage"])}
            end += b"data: %b\n\n" % to_json(usage)
        return end


def render_error(error: ForgelineError) -> dict[str, Any]:
    """Render the body of an error response."""
    message, status = error_fields(error)["error"], status_of(error)
    code = next((code for error_class, code in _ERROR_CODES.items() if isinstance(error, error_class)), error.code)
    field = _FIELD_PREFIX.match(message) if isinstance(error, InvalidRequest) else None
    return {"error": {"message": message, "type": _error_type(status), "param": field and field[1], "code": code}}


def _error_type(status: int) -> str:
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


def render_model_list(names: Sequence[str], providers: Mapping[str, str]) -> dict[str, Any]:
    """Render the list of models, with the fields of OpenAI's and of Anthropic's format."""
    return {
        "object": "list",
        "data": [render_model(name, providers[name]) for name in names],
        "has_more": False,
        "first_id": names[0] if names else None,
        "last_id": names[-1] if names else None,
    }


def render_model(name: str, provider: str) -> dict[str, Any]:
    """Render one model. Its creation time is unknown; the epoch stands for that, as in both APIs."""
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": provider,
        "type": "model",
        "display_name": name,
        "created_at": "1970-01-01T00:00:00Z",
    }


def _tool_call_delta(delta: ToolCallDelta) -> dict[str, Any]:
    if delta.id or delta.name:
        function = {"name": delta.name, "arguments": delta.arguments}
        return {"index": delta.index, "id": delta.id, "type": "function", "function": function}
    return {"index": delta.index, "function": {"arguments": delta.arguments}}


def _render_usage(usage: TokenUsage) -> dict[str, Any] | None:
    """None if the provider reported no token counts, or such that a client could not hold their sum."""
    prompt_tokens, completion_tokens = usage["input_tokens"], usage["output_tokens"]
    if prompt_tokens is None or completion_tokens is None:
        return None
    total_tokens = safe_integer(prompt_tokens + completion_tokens)
    if total_tokens is None:
        return None
    rendered: dict[str, Any] = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": total_tokens,
    }
    if (cached := usage.get("cache_read_tokens")) is not None:
        rendered["prompt_tokens_details"] = {"cached_tokens": cached}
    return rendered
