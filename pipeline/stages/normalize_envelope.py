"""normalize_envelope: the last stage. A provider's reply becomes events: its text as it comes, then the envelope."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pipeline.errors import ForgelineError
from pipeline.messages import (
    Event,
    Events,
    Failure,
    Inference,
    Result,
    Stop,
    StopReason,
    ToolCall,
    ToolCallPiece,
    Usage,
    summarize,
)
from pipeline.schema import NoOptions, check
from pipeline.stage import Context, Proceed


class NormalizeEnvelope:
    async def __call__(self, inference: Inference, proceed: Proceed) -> Events:
        return Events(_tell(inference), inference.call.reply.aclose)


async def _tell(inference: Inference) -> AsyncGenerator[Sequence[Event], None]:
    texts: list[str] = []
    pieces: list[ToolCallPiece] = []
    usage: Usage | None = None
    reason: StopReason = "other"
    try:
        async for batch in inference.call.reply:
            told: list[Event] = []
            for part in batch:
                if isinstance(part, str):
                    texts.append(part)
                    told.append(part)
                elif isinstance(part, ToolCallPiece):
                    if inference.request.tools:  # who gave no tools is told text alone
                        pieces.append(part)
                        told.append(part)
                elif isinstance(part, Usage):
                    usage = part
                elif isinstance(part, Stop):
                    reason = part.reason
            if told:
                yield told
    except ForgelineError as error:
        yield [Failure(inference.asked, error.again())]
        return
    ended, calls = time.monotonic(), _join(pieces)
    if reason == "tool_use" or (calls and reason == "end_turn"):  # some say `stop` where a tool was prescribed
        reason = "tool_use" if calls else "other"
    yield [Result(inference.asked, envelope(inference, "".join(texts), reason, usage, ended), calls)]


def _join(pieces: Iterable[ToolCallPiece]) -> tuple[ToolCall, ...]:
    calls: dict[int, list[ToolCallPiece]] = {}
    for piece in pieces:
        calls.setdefault(piece.index, []).append(piece)
    return tuple(
        ToolCall(first.id, first.name, "".join(piece.arguments for piece in (first, *rest)))
        for first, *rest in calls.values()
    )


def envelope(inference: Inference, text: str, reason: StopReason, usage: Usage | None, ended: float) -> dict[str, Any]:
    """The answer that a client gets. `ended` is when the upstream's last byte had come (monotonic seconds)."""
    request, route, call = inference.request, inference.route, inference.call
    asked = request.summary
    sent = _sent(inference)
    metadata: dict[str, Any] = {
        "request_id": request.request_id,
        "model": route.model,
        "provider": route.preset.provider,
        "time_to_first_token_ms": _milliseconds(call.first_chunk - request.received) if call.reply.streamed else None,
    }
    if inference.model != inference.asked:
        metadata["fallback_from"] = inference.asked
    if sent:
        metadata["sent"] = sent
    now = time.monotonic()
    metadata["duration_ms"] = _milliseconds(now - request.received)
    metadata["overhead_ms"] = _milliseconds(call.began - request.received - sum(inference.failed_calls) + now - ended)
    return {
        "time": datetime.now(UTC).isoformat(),
        "request": asked,
        "response": {
            "id": call.reply.id or f"msg_{request.request_id}",
            "model": call.reply.model or route.preset.model,
            "content": [{"type": "text", "text": text}],
            "stop_reason": reason,
            "usage": _tokens(usage or Usage(None, None)),
        },
        "metadata": metadata,
    }


def _tokens(usage: Usage) -> dict[str, int | None]:
    """Those of the provider's cache only where it tells them."""
    cached = {"cache_read_tokens": usage.cache_read_tokens, "cache_write_tokens": usage.cache_write_tokens}
    told = {name: tokens for name, tokens in cached.items() if tokens is not None}
    return {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens, **told}


def _sent(inference: Inference) -> dict[str, Any]:
    """What was sent otherwise than it was asked."""
    request, parameters = inference.request, inference.parameters
    if inference.messages == request.messages and parameters == request.parameters:
        return {}
    sent = summarize(inference.messages, request.media_type, parameters)
    return {key: value for key, value in sent.items() if value != request.summary[key]}


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)


def create(options: Mapping[str, Any], context: Context) -> NormalizeEnvelope:
    check(options, NoOptions)
    return NormalizeEnvelope()
