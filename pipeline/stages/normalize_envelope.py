"""normalize_envelope: the last stage. Turn a provider's response into events: its chunks, then the envelope."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from pipeline.envelope import AnswerMetadata, Envelope, StopReason, TokenUsage, safe_integer
from pipeline.errors import ForgelineError
from pipeline.messages import (
    Event,
    EventStream,
    Failure,
    Finish,
    Inference,
    Result,
    ToolCall,
    ToolCallDelta,
    Usage,
    summarize,
)
from pipeline.presets.schema import NoOptions
from pipeline.stage import Context, Proceed


class NormalizeEnvelope:
    Options = NoOptions

    def __init__(self, options: NoOptions, context: Context) -> None:
        pass

    async def __call__(self, inference: Inference, proceed: Proceed) -> EventStream:
        return EventStream(_stream_events(inference), inference.call.response.aclose)


async def _stream_events(inference: Inference) -> AsyncGenerator[Sequence[Event], None]:
    texts: list[str] = []
    deltas: list[ToolCallDelta] = []
    usage: Usage | None = None
    reason: StopReason = "other"
    try:
        async for batch in inference.call.response:
            events: list[Event] = []
            for part in batch:
                if isinstance(part, str):
                    texts.append(part)
                    events.append(part)
                elif isinstance(part, ToolCallDelta):
                    if inference.request.tools:  # a client that sent no tools gets text only
                        deltas.append(part)
                        events.append(part)
                elif isinstance(part, Usage):
                    usage = part
                elif isinstance(part, Finish):
                    reason = part.reason
            if events:
                yield events
    except ForgelineError as error:
        yield [Failure(inference.requested_model, error.without_traceback())]
        return
    ended_at, calls = time.monotonic(), _join_tool_calls(deltas)
    if reason == "tool_use" or (calls and reason == "end_turn"):  # some upstreams say `stop` when a tool was required
        reason = "tool_use" if calls else "other"
    yield [Result(inference.requested_model, build_envelope(inference, "".join(texts), reason, usage, ended_at), calls)]


def _join_tool_calls(deltas: Iterable[ToolCallDelta]) -> tuple[ToolCall, ...]:
    deltas_by_index: dict[int, list[ToolCallDelta]] = {}
    for delta in deltas:
        deltas_by_index.setdefault(delta.index, []).append(delta)
    return tuple(
        ToolCall(first.id, first.name, "".join(delta.arguments for delta in (first, *rest)))
        for first, *rest in deltas_by_index.values()
    )


def build_envelope(
    inference: Inference, text: str, reason: StopReason, usage: Usage | None, ended_at: float
) -> Envelope:
    """The envelope, a client's answer. `ended_at` is when the upstream's last byte came (monotonic seconds)."""
    request, target, call = inference.request, inference.target, inference.call
    now = time.monotonic()
    metadata: AnswerMetadata = {
        "request_id": request.request_id,
        "model": target.model,
        "provider": target.preset.provider,
        "time_to_first_token_ms": _to_milliseconds(call.first_chunk_at - request.received_at)
        if call.response.streamed
        else None,
        "duration_ms": _to_milliseconds(now - request.received_at),
        "overhead_ms": _to_milliseconds(
            call.started_at - request.received_at - sum(inference.failed_call_seconds) + now - ended_at
        ),
    }
    if inference.model != inference.requested_model:
        metadata["fallback_from"] = inference.requested_model
    if changed := _changed_fields(inference):
        metadata["sent"] = changed
    return {
        "time": datetime.now(UTC).isoformat(),
        "request": request.summary,
        "response": {
            "id": call.response.id or f"msg_{request.request_id}",
            "model": call.response.model or target.preset.model,
            "content": [{"type": "text", "text": text}],
            "stop_reason": reason,
            "usage": _describe_usage(usage or Usage(None, None)),
        },
        "metadata": metadata,
    }


def _describe_usage(usage: Usage) -> TokenUsage:
    """The token counts; those of the provider's cache only if it reports them."""
    described: TokenUsage = {
        "input_tokens": safe_integer(usage.input_tokens),
        "output_tokens": safe_integer(usage.output_tokens),
    }
    if (tokens := safe_integer(usage.cache_read_tokens)) is not None:
        described["cache_read_tokens"] = tokens
    if (tokens := safe_integer(usage.cache_write_tokens)) is not None:
        described["cache_write_tokens"] = tokens
    return described


def _changed_fields(inference: Inference) -> dict[str, Any]:
    """The fields of the request that were sent to the model with another value than the client's."""
    request, parameters = inference.request, inference.parameters
    if inference.messages == request.messages and parameters == request.parameters:
        return {}
    sent = summarize(inference.messages, request.media_type, parameters)
    pairs = zip(sent.items(), request.summary.values(), strict=True)
    return {name: value for (name, value), original in pairs if value != original}


def _to_milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
