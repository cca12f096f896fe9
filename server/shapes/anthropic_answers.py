"""Anthropic's Messages, as they are answered: whole, as events, and as errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from pipeline.errors import ForgelineError, ModelError
from pipeline.messages import Failure, Result, ToolCall, ToolCallPiece
from pipeline.streams import Record, Start
from server.errors import describe, status_of
from server.wire import to_json

_REASONS: Final = {
    "end_turn": "end_turn",
    "stop_sequence": "stop_sequence",
    "max_tokens": "max_tokens",
    "tool_use": "tool_use",
    "content_filter": "refusal",
    "other": "end_turn",
}
_KINDS: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def message(result: Result, request_id: str, stops: Sequence[str]) -> dict[str, Any]:
    """The whole answer. Raises ModelError where the arguments of a tool are not a JSON object."""
    response = result.envelope["response"]
    text = response["content"][0]["text"]
    content = [{"type": "text", "text": text, "citations": None}] if text else []
    content += [{"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call)} for call in result.calls]
    told = {**_head(request_id, result.model), "content": content, **_ending(response["stop_reason"], stops)}
    return {**told, "usage": _usage(response["usage"])}


class EventEncoder:
    """The events of a stream as Anthropic's: a message that starts, blocks that open, grow and close, its end."""

    heartbeat = b'event: ping\ndata: {"type":"ping"}\n\n'

    def __init__(self, request_id: str, model: str, stops: Sequence[str]) -> None:
        self._message_head = _head(request_id, model)
        self._stops = stops
        self._opened = 0  # blocks so far; the last of them is open
        self._tool: int | None = None  # the tool call that the open block is; None: it is text
        # A template for text, as for our own events.
        self._text = b""

    def encode(self, batch: Sequence[Record], first: int) -> bytes:
        return b"".join(
            self._text % to_json(record) if self._text and type(record) is str else b"".join(self._encode(record))
            for record in batch
        )

    def _encode(self, record: Record) -> Iterator[bytes]:
        match record:
            case Start():
                empty: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": _usage({})}
                yield _event("message_start", message={**self._message_head, **empty})
                yield self.heartbeat
            case str():
                yield from self._open({"type": "text", "text": ""}, None)
                yield self._text % to_json(record)
            case ToolCallPiece():
                if self._tool != record.index:
                    begun = {"type": "tool_use", "id": record.id, "name": record.name, "input": {}}
                    yield from self._open(begun, record.index)
                if record.arguments:
                    delta = {"type": "input_json_delta", "partial_json": record.arguments}
                    yield _event("content_block_delta", index=self._opened - 1, delta=delta)
            case Result():
                yield from self._close()
                response = record.envelope["response"]
                delta = _ending(response["stop_reason"], self._stops)
                yield _event("message_delta", delta=delta, usage=_usage(response["usage"]))
                yield _event("message_stop")
            case Failure():
                yield _event("error", **error_part(record.error))

    def _open(self, block: dict[str, Any], tool: int | None) -> Iterator[bytes]:
        yield from self._close()
        yield _event("content_block_start", index=self._opened, content_block=block)
        head = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d' % self._opened
        self._text = head + b',"delta":{"type":"text_delta","text":%b}}\n\n' if tool is None else b""
        self._tool = tool
        self._opened += 1

    def _close(self) -> Iterator[bytes]:
        if self._text or self._tool is not None:
            yield _event("content_block_stop", index=self._opened - 1)
        self._text, self._tool = b"", None


def error_content(error: ForgelineError, request_id: str) -> dict[str, Any]:
    """The body of an error."""
    return {"type": "error", **error_part(error), "request_id": request_id}


def error_part(error: ForgelineError) -> dict[str, Any]:
    status = status_of(error)
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "api_error")
    return {"error": {"type": kind, "message": describe(error)["error"]}}


def _event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), to_json({"type": kind, **fields}))


def _head(request_id: str, model: str) -> dict[str, Any]:
    return {"id": f"msg_{request_id}", "type": "message", "role": "assistant", "model": model}


def _ending(reason: str, stops: Sequence[str]) -> dict[str, Any]:
    """Which of several sequences it was that stopped the model, not every provider says."""
    sequence = stops[0] if reason == "stop_sequence" and len(stops) == 1 else None
    return {"stop_reason": _REASONS[reason], "stop_sequence": sequence}


def _usage(usage: Mapping[str, int | None]) -> dict[str, int]:
    """0 where the provider tells no number: clients of this shape add them up, and it has no word for unknown."""
    return {
        "input_tokens": usage.get("input_tokens") or 0,
        "output_tokens": usage.get("output_tokens") or 0,
        "cache_read_input_tokens": usage.get("cache_read_tokens") or 0,
        "cache_creation_input_tokens": usage.get("cache_write_tokens") or 0,
    }


def _input(call: ToolCall) -> dict[str, Any]:
    try:
        return msgspec.json.decode(call.arguments or "{}", type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise ModelError(f"The model called {call.name} with arguments that are not a JSON object.") from error
