"""Render responses of Anthropic's Messages API: whole messages, events and errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from pipeline.envelope import TokenUsage
from pipeline.errors import ForgelineError, ModelError
from pipeline.messages import Failure, Result, ToolCall, ToolCallDelta
from pipeline.streams import StreamRecord, StreamStart
from server.errors import error_fields, status_of
from server.inference.encoders import to_json

_STOP_REASONS: Final = {
    "end_turn": "end_turn",
    "stop_sequence": "stop_sequence",
    "max_tokens": "max_tokens",
    "tool_use": "tool_use",
    "content_filter": "refusal",
    "other": "end_turn",
}
_ERROR_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def render_message(result: Result, request_id: str, stop_sequences: Sequence[str]) -> dict[str, Any]:
    """Render the whole message. Raises ModelError if the arguments of a tool call are not a JSON object."""
    response = result.envelope["response"]
    text = response["content"][0]["text"]
    content: list[dict[str, Any]] = [{"type": "text", "text": text, "citations": None}] if text else []
    content += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": _tool_input(call)} for call in result.tool_calls
    ]
    return {
        **_message_header(request_id, result.model),
        "content": content,
        **_stop_fields(response["stop_reason"], stop_sequences),
        "usage": _render_usage(response["usage"]),
    }


class MessageEventEncoder:
    """Encodes a stream's records as Anthropic's events: `message_start`, content blocks, `message_stop`."""

    heartbeat = b'event: ping\ndata: {"type":"ping"}\n\n'

    def __init__(self, request_id: str, model: str, stop_sequences: Sequence[str]) -> None:
        self._message_header = _message_header(request_id, model)
        self._stop_sequences = stop_sequences
        self._block_count = 0  # the last block is the open one
        self._open_tool_index: int | None = None  # None: the open block is text
        self._text_template = b""  # the event of a text delta up to the text; empty: no text block is open

    def encode(self, batch: Sequence[StreamRecord], first: int) -> bytes:
        return b"".join(
            self._text_template % to_json(record)
            if self._text_template and type(record) is str
            else b"".join(self._encode_record(record))
            for record in batch
        )

    def _encode_record(self, record: StreamRecord) -> Iterator[bytes]:
        match record:
            case StreamStart():
                initial_fields: dict[str, Any] = {
                    "content": [],
                    "stop_reason": None,
                    "stop_sequence": None,
                    "usage": _render_usage({"input_tokens": None, "output_tokens": None}),
                }
                yield _encode_event("message_start", message={**self._message_header, **initial_fields})
                yield self.heartbeat
            case str():
                yield from self._open_block({"type": "text", "text": ""}, None)
                yield self._text_template % to_json(record)
            case ToolCallDelta():
                if self._open_tool_index != record.index:
                    block = {"type": "tool_use", "id": record.id, "name": record.name, "input": {}}
                    yield from self._open_block(block, record.index)
                if record.arguments:
                    delta = {"type": "input_json_delta", "partial_json": record.arguments}
                    yield _encode_event("content_block_delta", index=self._block_count - 1, delta=delta)
            case Result():
                yield from self._close_block()
                response = record.envelope["response"]
                delta = _stop_fields(response["stop_reason"], self._stop_sequences)
                yield _encode_event("message_delta", delta=delta, usage=_render_usage(response["usage"]))
                yield _encode_event("message_stop")
            case Failure():
                yield _encode_event("error", **_error_fields(record.error))

    def _open_block(self, block: dict[str, Any], tool_index: int | None) -> Iterator[bytes]:
        yield from self._close_block()
        yield _encode_event("content_block_start", index=self._block_count, content_block=block)
        head = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d' % self._block_count
        self._text_template = head + b',"delta":{"type":"text_delta","text":%b}}\n\n' if tool_index is None else b""
        self._open_tool_index = tool_index
        self._block_count += 1

    def _close_block(self) -> Iterator[bytes]:
        if self._text_template or self._open_tool_index is not None:
            yield _encode_event("content_block_stop", index=self._block_count - 1)
        self._text_template, self._open_tool_index = b"", None


def render_error(error: ForgelineError, request_id: str) -> dict[str, Any]:
    """Render the body of an error response."""
    return {"type": "error", **_error_fields(error), "request_id": request_id}


def _error_fields(error: ForgelineError) -> dict[str, Any]:
    status = status_of(error)
    error_type = _ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"error": {"type": error_type, "message": error_fields(error)["error"]}}


def _encode_event(event_type: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event_type.encode(), to_json({"type": event_type, **fields}))


def _message_header(request_id: str, model: str) -> dict[str, Any]:
    return {"id": f"msg_{request_id}", "type": "message", "role": "assistant", "model": model}


def _stop_fields(reason: str, stop_sequences: Sequence[str]) -> dict[str, Any]:
    """With several stop sequences `stop_sequence` is None: not every provider tells which one matched."""
    sequence = stop_sequences[0] if reason == "stop_sequence" and len(stop_sequences) == 1 else None
    return {"stop_reason": _STOP_REASONS[reason], "stop_sequence": sequence}


def _render_usage(usage: TokenUsage) -> dict[str, int]:
    """0 for numbers that the provider does not report: clients add them up, and the format has no null here."""
    return {
        "input_tokens": usage["input_tokens"] or 0,
        "output_tokens": usage["output_tokens"] or 0,
        "cache_read_input_tokens": usage.get("cache_read_tokens") or 0,
        "cache_creation_input_tokens": usage.get("cache_write_tokens") or 0,
    }


def _tool_input(call: ToolCall) -> dict[str, Any]:
    try:
        return msgspec.json.decode(call.arguments or "{}", type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise ModelError(f"The model called {call.name} with arguments that are not a JSON object.") from error
