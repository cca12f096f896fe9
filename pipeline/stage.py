"""Stages, providers and the pipeline that they form: read this file first.

A stage gets an inference and the rest of the pipeline, and returns the events of the answer:

    class Shout:
        async def __call__(self, inference: Inference, proceed: Proceed) -> EventStream:
            return await proceed(replace(inference, model=inference.model.upper()))

A failure before the model's first chunk is an exception out of `await proceed(...)`; a failure after it is a `Failure`
among the events. So a retry or a fallback is a try/except around `proceed`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pipeline.messages import EventStream, Inference, ModelResponse, ModelTarget
from pipeline.presets.models import ModelPreset

if TYPE_CHECKING:
    from pipeline.telemetry.otel import Tracing

Proceed = Callable[[Inference], Awaitable[EventStream]]


class Stage(Protocol):
    """One step of the pipeline. It may also have `async start()` and `async close()`."""

    async def __call__(self, inference: Inference, proceed: Proceed) -> EventStream: ...


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a model can answer now, and if not, why not. Only `available` and `unknown` models may be called.

    The statuses after `unavailable` are those of a model that must be deployed first.
    """

    status: Literal["available", "unknown", "unavailable", "not_deployed", "in_progress", "failed", "deleting"]
    reason: str | None = None


class Provider(Protocol):
    """One kind of backend. It may also have `async start()` and `async close()`.

    It may have `supported_features`, a collection of names: those of `InferenceRequest.required_features` that it
    passes on to its models.
    """

    async def open(self, target: ModelTarget, inference: Inference) -> ModelResponse:
        """Call the model, and return once its first chunk (or its end) has come.

        Every error, here and from the response, is a `ForgelineError`: the provider translates those of its library.
        """
        ...

    async def availability(self, preset: ModelPreset) -> Availability:
        """Return what is known, without waiting: this is called for every model of a list."""
        ...


@dataclass
class ModelCounters:
    """Counters of one model since the server started. `open_calls` is a gauge: the calls that are running."""

    retries: int = 0
    fallbacks: int = 0
    open_calls: int = 0

    def end_call(self) -> None:
        self.open_calls -= 1


@dataclass
class Context:
    """What stages and providers are created with.

    `providers` is filled once all have been created. `models` returns the presets in force. Call
    `notify_model_changed` with a model's name when its state has changed. `tracing` is None where requests are not
    traced; a provider adds its context to the requests that it sends.
    """

    providers: Mapping[str, Provider] = field(default_factory=dict)
    notify_model_changed: Callable[[str], None] = lambda model: None
    models: Callable[[], Mapping[str, ModelPreset]] = dict
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    tracing: Tracing | None = None

    def state(self, model: str) -> dict[str, Any]:
        """Return the model's state that outlives reloads, such as permits and breakers."""
        return self.states.setdefault(model, {})

    def counters(self, model: str) -> ModelCounters:
        counters: ModelCounters = self.state(model).setdefault("counters", ModelCounters())
        return counters


class Pipeline:
    """The stages in the order in which data meets them; each gets the rest as its `proceed`."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = tuple(stages)
        proceed: Proceed = _proceed_after_last_stage
        for stage in reversed(self.stages):
            proceed = partial(stage.__call__, proceed=proceed)
        self._first = proceed

    async def __call__(self, inference: Inference) -> EventStream:
        return await self._first(inference)


async def _proceed_after_last_stage(inference: Inference) -> EventStream:
    raise LookupError("the last stage of pipeline.yaml proceeded: normalize_envelope has to stand there")
