"""Spans of a pipeline that is traced: one for each inference, each stage that it passes, and each call of a model.

Nothing here is per token, and nothing here is in the way of a pipeline that is not traced: stages and providers are
wrapped when they are put together. What a model answered is read off its outcome.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pipeline import traced_text
from pipeline.messages import Events, Failure, Inference, Reply, Result, Route
from pipeline.presets import ModelPreset
from pipeline.providers.aws_errors import masked
from pipeline.stage import Availability, Pipeline, Proceed, Provider, Stage

if TYPE_CHECKING:
    from pipeline.otel import Span, Tracing, Value

T = TypeVar("T")

_NAMES: Final = {"bedrock": "aws.bedrock", "openai_compatible": "openai"}
"""What the conventions call our providers; one that they don't know keeps its name."""

_CACHE_IS_EXTRA: Final = {"bedrock"}
"""Where tokens of a cache are no part of the input's, as the conventions want them to be."""

_answering: ContextVar[_Answering | None] = ContextVar("answering", default=None)


@dataclass(eq=False, slots=True)
class _Answering:
    """The answer of one model on its way: its spans, until its outcome is known."""

    tracing: Tracing
    span: Span
    call: Span | None = None
    provider: str = ""
    has_outcome: bool = False

    def end(self, span: Span) -> None:
        """Ends one of its spans; what comes to its end before an outcome has been given up."""
        if not self.has_outcome:
            self.tracing.fail(span, "cancelled")
        span.end()


class TracedPipeline(Pipeline):
    """Each stage in a span of its own, and all of them in the inference's; as they are where no trace is recorded."""

    def __init__(self, tracing: Tracing, named: Sequence[tuple[str, Stage]]) -> None:
        traced = [TracedStage(tracing, name, stage) for name, stage in named]
        super().__init__([TracedInference(tracing), *traced])
        self._tracing = tracing
        self._bare = Pipeline([stage for _, stage in named])

    async def __call__(self, inference: Inference) -> Events:
        return await (super().__call__(inference) if self._tracing.is_recording() else self._bare(inference))


def hearing(tracing: Tracing, tell: Callable[[Result | Failure], None]) -> Callable[[Result | Failure], None]:
    """What hears of outcomes, in the task of their inference: their spans do first."""

    def hear(outcome: Result | Failure) -> None:
        answering = _answering.get()
        if answering is not None and answering.span.is_recording():  # what failed early has ended it
            answering.has_outcome = True
            _tell(answering, outcome)
        tell(outcome)

    return hear


class TracedInference:
    """Stands before the first stage."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    async def __call__(self, inference: Inference, proceed: Proceed) -> Events:
        tracing = self._tracing
        attributes = {"forgeline.request_id": inference.request.request_id, "forgeline.model": inference.asked}
        span = tracing.start(f"inference {inference.asked}", attributes=attributes)
        answering = _Answering(tracing, span)
        _answering.set(answering)  # for the rest of the task, which hears of the outcome
        events = await _within(tracing, span, proceed(inference))
        events.hold(lambda: answering.end(span))
        return events


class TracedStage:
    """One stage: from its beginning until its events have been given to the last."""

    def __init__(self, tracing: Tracing, name: str, stage: Stage) -> None:
        self._tracing = tracing
        self._name = f"stage {name}"
        self._stage = stage

    async def __call__(self, inference: Inference, proceed: Proceed) -> Events:
        span = self._tracing.start(self._name)
        events = await _within(self._tracing, span, self._stage(inference, proceed))
        events.hold(span.end)
        return events


class TracedProvider:
    """One provider: each call of a model has a span, by the conventions for generative AI."""

    def __init__(self, tracing: Tracing, name: str, provider: Provider) -> None:
        self._tracing = tracing
        self._name = name
        self._provider = provider

    def __getattr__(self, name: str) -> Any:
        """Whatever else it has, such as `takes`."""
        return getattr(self._provider, name)

    async def availability(self, preset: ModelPreset) -> Availability:
        return await self._provider.availability(preset)

    async def open(self, route: Route, inference: Inference) -> Reply:
        tracing = self._tracing
        if not tracing.is_recording():
            return await self._provider.open(route, inference)
        began = time.monotonic()
        span = tracing.start(f"chat {masked(route.preset.model)}", "client", self._request(route, inference))
        reply = await _within(tracing, span, self._provider.open(route, inference))
        span.set_attributes(_response(reply, time.monotonic() - began))
        answering = _answering.get()
        if answering is None:  # asked by somebody who is no inference
            reply.hold(span.end)
        else:
            answering.call, answering.provider = span, self._name
            reply.hold(lambda: answering.end(span))
        return reply

    def _request(self, route: Route, inference: Inference) -> dict[str, Value]:
        """What the model is asked, in the conventions' words."""
        asked = inference.parameters
        told: dict[str, Value | None] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": _NAMES.get(self._name, self._name),
            "gen_ai.request.model": masked(route.preset.model),
            "gen_ai.request.stream": "stream" in route.preset.capabilities or None,
            "gen_ai.request.max_tokens": asked.max_tokens,
            "gen_ai.request.temperature": asked.temperature,
            "gen_ai.request.top_p": asked.top_p,
            "gen_ai.request.seed": asked.extras.get("seed"),
            "gen_ai.request.frequency_penalty": asked.extras.get("frequency_penalty"),
            "gen_ai.request.presence_penalty": asked.extras.get("presence_penalty"),
            "forgeline.model": route.model,
        }
        if self._tracing.captures_text:
            told |= traced_text.asked(inference)
        return _said(told)


async def _within(tracing: Tracing, span: Span, work: Awaitable[T]) -> T:
    """Does the work with this span as the current one, and ends it where that fails."""
    with tracing.current(span):
        try:
            return await work
        except BaseException as error:
            tracing.fail(span, error)
            span.end()
            raise


def _response(reply: Reply, seconds: float) -> dict[str, Value]:
    """What is known of an answer with its first chunk."""
    told = {
        "gen_ai.response.id": reply.id or None,
        "gen_ai.response.model": reply.model or None,
        "gen_ai.response.time_to_first_chunk": seconds if reply.streamed else None,
    }
    return _said(told)


def _tell(answering: _Answering, outcome: Result | Failure) -> None:
    """What is known of an answer at its end."""
    tracing, span, call = answering.tracing, answering.span, answering.call
    if isinstance(outcome, Failure):
        tracing.fail(span, outcome.error.code)
        if call is not None:
            tracing.fail(call, outcome.error.code)
        return
    envelope = outcome.envelope
    if "fallback_from" in envelope["metadata"]:
        span.set_attribute("forgeline.answered_by", envelope["metadata"]["model"])
    if call is not None:
        call.set_attributes(_usage(envelope["response"], is_extra=answering.provider in _CACHE_IS_EXTRA))
        if tracing.captures_text:
            call.set_attributes(traced_text.answered(outcome))


def _usage(response: Mapping[str, Any], *, is_extra: bool) -> dict[str, Value]:
    usage: Mapping[str, int | None] = response["usage"]
    read, written, given = (usage.get(name) for name in ("cache_read_tokens", "cache_write_tokens", "input_tokens"))
    cached = (read or 0) + (written or 0) if is_extra else 0
    told: dict[str, Value | None] = {
        "gen_ai.response.finish_reasons": (response["stop_reason"],),
        "gen_ai.usage.input_tokens": None if given is None else given + cached,
        "gen_ai.usage.output_tokens": usage["output_tokens"],
        "gen_ai.usage.cache_read.input_tokens": read,
        "gen_ai.usage.cache_creation.input_tokens": written,
    }
    return _said(told)


def _said(told: Mapping[str, Value | None]) -> dict[str, Value]:
    """Those that say something: an attribute that is not known is not set."""
    return {name: value for name, value in told.items() if value is not None}
