"""Spans of a traced pipeline: one for each inference, each of its stages, and each call of a model.

Stages and providers are wrapped when the pipeline is created, so an untraced pipeline has no cost, and a traced one has
none per token. The attributes of a response are taken from its outcome.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.masking import mask_identifiers
from pipeline.messages import EventStream, Failure, Inference, ModelResponse, ModelTarget, Result
from pipeline.presets.models import ModelPreset
from pipeline.stage import Availability, Pipeline, Proceed, Provider, Stage
from pipeline.telemetry import content

if TYPE_CHECKING:
    from pipeline.telemetry.otel import AttributeValue, Span, Tracing

T = TypeVar("T")

_current_trace: ContextVar[_InferenceTrace | None] = ContextVar("inference_trace", default=None)


@dataclass(eq=False, slots=True)
class _InferenceTrace:
    """The open spans of one inference, until its outcome is known."""

    tracing: Tracing
    span: Span
    call_span: Span | None = None
    excludes_cached_tokens: bool = False
    has_outcome: bool = False

    def end(self, span: Span) -> None:
        """End one of its spans, as cancelled where there is no outcome yet."""
        if not self.has_outcome:
            self.tracing.mark_failed(span, "cancelled")
        span.end()


class TracedPipeline(Pipeline):
    """A pipeline with a span for each inference and each stage. Where the trace is not recorded, no spans are made."""

    def __init__(self, tracing: Tracing, stages: Sequence[tuple[str, Stage]]) -> None:
        traced = [TracedStage(tracing, name, stage) for name, stage in stages]
        super().__init__([TracedInference(tracing), *traced])
        self._tracing = tracing
        self._untraced = Pipeline([stage for _, stage in stages])

    async def __call__(self, inference: Inference) -> EventStream:
        return await (super().__call__(inference) if self._tracing.is_recording() else self._untraced(inference))


def trace_outcomes(on_outcome: Callable[[Result | Failure], None]) -> Callable[[Result | Failure], None]:
    """Wrap a listener of outcomes, which is called in the inference's task: record the outcome in its spans first."""

    def record_and_forward(outcome: Result | Failure) -> None:
        trace = _current_trace.get()
        if trace is not None and trace.span.is_recording():  # an early failure has ended the span already
            trace.has_outcome = True
            _record_outcome(trace, outcome)
        on_outcome(outcome)

    return record_and_forward


class TracedInference:
    """A stage before all others: the span of the inference."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    async def __call__(self, inference: Inference, proceed: Proceed) -> EventStream:
        tracing = self._tracing
        attributes = {
            "forgeline.request_id": inference.request.request_id,
            "forgeline.model": inference.requested_model,
        }
        span = tracing.start_span(f"inference {inference.requested_model}", attributes=attributes)
        trace = _InferenceTrace(tracing, span)
        _current_trace.set(trace)  # for the rest of the task, in which the listener of outcomes is called
        events = await _run_in_span(tracing, span, proceed(inference))
        events.add_cleanup(lambda: trace.end(span))
        return events


class TracedStage:
    """A stage with a span, from its call to the end of its events."""

    def __init__(self, tracing: Tracing, name: str, stage: Stage) -> None:
        self._tracing = tracing
        self._name = f"stage {name}"
        self._stage = stage

    async def __call__(self, inference: Inference, proceed: Proceed) -> EventStream:
        span = self._tracing.start_span(self._name)
        events = await _run_in_span(self._tracing, span, self._stage(inference, proceed))
        events.add_cleanup(span.end)
        return events


class TracedProvider:
    """A provider with a span for each call, by the semantic conventions for generative AI."""

    def __init__(self, tracing: Tracing, name: str, provider: Provider) -> None:
        self._tracing = tracing
        self._name = getattr(provider, "telemetry_name", name)
        self._excludes_cached_tokens = getattr(provider, "excludes_cached_tokens", False)
        self._provider = provider

    def __getattr__(self, name: str) -> Any:
        """Delegate the optional attributes, such as `supported_features`."""
        return getattr(self._provider, name)

    async def availability(self, preset: ModelPreset) -> Availability:
        return await self._provider.availability(preset)

    async def open(self, target: ModelTarget, inference: Inference) -> ModelResponse:
        tracing = self._tracing
        if not tracing.is_recording():
            return await self._provider.open(target, inference)
        started_at = time.monotonic()
        span = tracing.start_span(
            f"chat {mask_identifiers(target.preset.model)}", "client", self._request_attributes(target, inference)
        )
        response = await _run_in_span(tracing, span, self._provider.open(target, inference))
        span.set_attributes(_response_attributes(response, time.monotonic() - started_at))
        trace = _current_trace.get()
        if trace is None:  # a call outside of an inference
            response.add_cleanup(span.end)
        else:
            trace.call_span, trace.excludes_cached_tokens = span, self._excludes_cached_tokens
            response.add_cleanup(lambda: trace.end(span))
        return response

    def _request_attributes(self, target: ModelTarget, inference: Inference) -> dict[str, AttributeValue]:
        parameters = inference.parameters
        attributes: dict[str, AttributeValue | None] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": self._name,
            "gen_ai.request.model": mask_identifiers(target.preset.model),
            "gen_ai.request.stream": "stream" in target.preset.capabilities or None,
            "gen_ai.request.max_tokens": parameters.max_tokens,
            "gen_ai.request.temperature": parameters.temperature,
            "gen_ai.request.top_p": parameters.top_p,
            "gen_ai.request.seed": parameters.extras.get("seed"),
            "gen_ai.request.frequency_penalty": parameters.extras.get("frequency_penalty"),
            "gen_ai.request.presence_penalty": parameters.extras.get("presence_penalty"),
            "forgeline.model": target.model,
        }
        if self._tracing.captures_content:
            attributes |= content.request_attributes(inference)
        return _drop_none(attributes)


async def _run_in_span(tracing: Tracing, span: Span, work: Awaitable[T]) -> T:
    """Await the work with this span as the current one. End the span where the work fails."""
    with tracing.use_span(span):
        try:
            return await work
        except BaseException as error:
            tracing.mark_failed(span, error)
            span.end()
            raise


def _response_attributes(response: ModelResponse, seconds: float) -> dict[str, AttributeValue]:
    """The attributes that are known with the first chunk, which took `seconds`."""
    attributes = {
        "gen_ai.response.id": response.id or None,
        "gen_ai.response.model": response.model or None,
        "gen_ai.response.time_to_first_chunk": seconds if response.streamed else None,
    }
    return _drop_none(attributes)


def _record_outcome(trace: _InferenceTrace, outcome: Result | Failure) -> None:
    tracing, span, call_span = trace.tracing, trace.span, trace.call_span
    if isinstance(outcome, Failure):
        tracing.mark_failed(span, outcome.error.code)
        if call_span is not None:
            tracing.mark_failed(call_span, outcome.error.code)
        return
    envelope = outcome.envelope
    if "fallback_from" in envelope["metadata"]:
        span.set_attribute("forgeline.answered_by", envelope["metadata"]["model"])
    if call_span is not None:
        call_span.set_attributes(_usage_attributes(envelope["response"], excludes_cached=trace.excludes_cached_tokens))
        if tracing.captures_content:
            call_span.set_attributes(content.response_attributes(outcome))


def _usage_attributes(response: Mapping[str, Any], *, excludes_cached: bool) -> dict[str, AttributeValue]:
    usage: Mapping[str, int | None] = response["usage"]
    read, written = usage.get("cache_read_tokens"), usage.get("cache_write_tokens")
    input_tokens = usage.get("input_tokens")
    cached = (read or 0) + (written or 0) if excludes_cached else 0
    attributes: dict[str, AttributeValue | None] = {
        "gen_ai.response.finish_reasons": (response["stop_reason"],),
        "gen_ai.usage.input_tokens": None if input_tokens is None else input_tokens + cached,
        "gen_ai.usage.output_tokens": usage["output_tokens"],
        "gen_ai.usage.cache_read.input_tokens": read,
        "gen_ai.usage.cache_creation.input_tokens": written,
    }
    return _drop_none(attributes)


def _drop_none(attributes: Mapping[str, AttributeValue | None]) -> dict[str, AttributeValue]:
    """Drop the unknown attributes, which are not set."""
    return {name: value for name, value in attributes.items() if value is not None}
