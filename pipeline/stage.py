"""Stages and the pipeline they form: open this first.

A stage gets an inference and the rest of the pipeline, and returns the events of the answer:

    class Shout:
        async def __call__(self, inference: Inference, proceed: Proceed) -> Events:
            return await proceed(replace(inference, model=inference.model.upper()))

What fails before the model's first chunk is an exception out of `await proceed(...)`; what fails
after it is a `Failure` among the events. So a retry or a fallback is a try/except around `proceed`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pipeline.messages import Events, Inference, Reply, Route
from pipeline.presets import ModelPreset

if TYPE_CHECKING:
    from pipeline.otel import Tracing

Proceed = Callable[[Inference], Awaitable[Events]]


class Stage(Protocol):
    """One step of the way. It may also have `async start()` and `async close()`."""

    async def __call__(self, inference: Inference, proceed: Proceed) -> Events: ...


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a model could answer now, and if not, why not. `available` and `unknown` models may be asked.

    Those after `unavailable` have to be deployed first, or are on their way.
    """

    status: Literal["available", "unknown", "unavailable", "not_deployed", "in_progress", "failed", "deleting"]
    reason: str | None = None


class Provider(Protocol):
    """One kind of backend. It may also have `async start()` and `async close()`.

    And `takes`, a collection of names: those of `InferenceRequest.wants` that it passes on to its models.
    """

    async def open(self, route: Route, inference: Inference) -> Reply:
        """Asks the model, and returns once its first chunk (or its end) is there.

        Every error, here and out of the reply, is a `ForgelineError`: the library's own are translated.
        """
        ...

    async def availability(self, preset: ModelPreset) -> Availability:
        """Answers at once, from what is known: it is asked for every model of a list."""
        ...


@dataclass
class Tally:
    """What has been counted of one model since the server started; `calls_open` are under way now."""

    retries: int = 0
    fallbacks: int = 0
    calls_open: int = 0

    def call_ended(self) -> None:
        self.calls_open -= 1


@dataclass
class Context:
    """What a stage or a provider is made with.

    `providers` is filled when all are made. `models` gives the presets in force. `announce` tells those who watch that
    a model's state has changed. `tracing` is there where requests are traced: what a provider sends carries it on.
    """

    providers: Mapping[str, Provider] = field(default_factory=dict)
    announce: Callable[[str], None] = lambda model: None
    models: Callable[[], Mapping[str, ModelPreset]] = dict
    states: dict[str, dict[str, Any]] = field(default_factory=dict)
    tracing: Tracing | None = None

    def state(self, model: str) -> dict[str, Any]:
        """A dict of the model's that outlives reloads: permits, a breaker's memory."""
        return self.states.setdefault(model, {})

    def tally(self, model: str) -> Tally:
        tally: Tally = self.state(model).setdefault("tally", Tally())
        return tally


class Pipeline:
    """The stages in the order in which data meets them, each given the rest as its `proceed`."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = tuple(stages)
        proceed: Proceed = _nothing_left
        for stage in reversed(self.stages):
            proceed = partial(stage.__call__, proceed=proceed)
        self._enter = proceed

    async def __call__(self, inference: Inference) -> Events:
        return await self._enter(inference)


async def _nothing_left(inference: Inference) -> Events:
    raise LookupError("the last stage of pipeline.yaml proceeded: normalize_envelope has to stand there")
