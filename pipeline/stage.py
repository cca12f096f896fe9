"""Stages, providers and the pipeline that they form: read this file first.

A stage gets an inference and the rest of the pipeline, and returns the events of the answer:

    class Shout:
        async def __call__(self, inference: Inference, proceed: Proceed) -> EventStream:
            return await proceed(replace(inference, model=inference.model.upper()))

A failure before the model's first chunk is an exception out of `await proceed(...)`; a failure after it is a `Failure`
among the events. So a retry or a fallback is a try/except around `proceed`.

A stage or a provider is made by calling its class with its options and the `Context`. The class declares its settings:

    class Shout:
        class Options(Struct, forbid_unknown_fields=True):  # its keys in pipeline.yaml
            ending: str = "!"

        class ModelOptions(Struct, frozen=True):  # its top-level keys in models/NAME.yaml
            shouts: bool = True

        def __init__(self, options: Options, context: Context) -> None: ...

`target.preset.options_of(Shout.ModelOptions)` are those of a model.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, runtime_checkable

from pipeline.messages import EventStream, Inference, ModelResponse, ModelTarget
from pipeline.presets.models import ModelPreset

if TYPE_CHECKING:
    from pipeline.telemetry.otel import Tracing

S = TypeVar("S")

_METRIC_NAME = re.compile(r"[a-z][a-z0-9_]*")

Proceed = Callable[[Inference], Awaitable[EventStream]]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number of a model, for `/metrics`: `forgeline_<name>`, with the label `model` and these `labels`.

    A gauge may fall, a counter may not: `_total` is added to its name. A label is never what a client made up. Raises
    ValueError, TypeError for what Prometheus would not take.
    """

    name: str
    documentation: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    type: Literal["gauge", "counter"] = "gauge"

    def __post_init__(self) -> None:
        for name in (self.name, *self.labels):
            if not _METRIC_NAME.fullmatch(name) or (name == "model" and name in self.labels):
                raise ValueError(f"{name!r} is no name for a metric or for one of its labels")
        if not all(isinstance(value, str) for value in self.labels.values()):
            raise TypeError(f"the labels of the metric {self.name!r} have to be strings")
        float(self.value)


@runtime_checkable
class Measured(Protocol):
    """A stage or a provider with numbers of its own for `/metrics`."""

    def gauges(self, target: ModelTarget) -> Iterable[Measurement]:
        """The numbers of this model now. Called for every model at each scrape; of a provider, for its own models."""
        ...


@runtime_checkable
class Described(Protocol):
    """A stage or a provider that has something to say of a model in `/api/models` and on the change feed."""

    def describe(self, target: ModelTarget) -> Mapping[str, Any]:
        """Fields of the model, JSON values by name, as they are now."""
        ...


class Stage(Protocol):
    """One step of the pipeline.

    It may also have `async start()` and `async close()`, and be `Measured` and `Described`.
    """

    async def __call__(self, inference: Inference, proceed: Proceed) -> EventStream: ...


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether a model can answer now, and if not, why not. Only `available` and `unknown` models may be called.

    The statuses after `unavailable` are those of a model that must be deployed first.
    """

    status: Literal["available", "unknown", "unavailable", "not_deployed", "in_progress", "failed", "deleting"]
    reason: str | None = None


class Provider(Protocol):
    """One kind of backend.

    It may also have `async start()` and `async close()`, and be `Measured`, `Described` and `Deploys`. Optional
    attributes:

    - `supported_features`, a collection of names: those of `InferenceRequest.required_features` that it passes on
    - `telemetry_name`: its name in OpenTelemetry's conventions, where that is not the name in presets
    - `excludes_cached_tokens`: whether its `Usage.input_tokens` exclude the tokens of the provider's cache
    """

    async def open(self, target: ModelTarget, inference: Inference) -> ModelResponse:
        """Call the model, and return once its first chunk (or its end) has come.

        Every error, here and from the response, is a `ForgelineError`: the provider translates those of its library.
        """
        ...

    async def availability(self, preset: ModelPreset) -> Availability:
        """Return what is known, without waiting: this is called for every model of a list."""
        ...


DeploymentStatus = Literal["deployed", "in_progress", "failed", "deleting", "not_deployed", "unknown"]


@dataclass(frozen=True, slots=True)
class Deployment:
    """The deployment of one model. `endpoint` is the name of its endpoint, `base_url` the address of its router."""

    status: DeploymentStatus
    stack: str | None = None
    instance: str | None = None
    engine: str | None = None
    service: str | None = None
    endpoint: str | None = None
    base_url: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class DeploySettings:
    """How a model is deployed. `command` is the exact command line that does it."""

    tag: str
    region: str | None
    instance: str | None
    engine: str | None
    service: str | None
    command: str


@runtime_checkable
class Deploys(Protocol):
    """A provider whose models have to be deployed before they can be called."""

    def deploy_settings(self, preset: ModelPreset) -> DeploySettings: ...

    async def deployment(self, preset: ModelPreset) -> Deployment:
        """Return the deployment as it is now. This may wait for the first look-up, but for no more."""
        ...


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
    tracing: Tracing | None = None
    _states: dict[tuple[str, type], Any] = field(default_factory=dict, init=False)

    def state(self, model: str, kind: type[S]) -> S:
        """Return the state of this type for the model, made by `kind()` at first.

        It outlives reloads and the stage itself: permits, breakers and counters are such states. The type is the
        stage's own, so that no other stage uses the same state.
        """
        state: S | None = self._states.get((model, kind))
        if state is None:
            state = self._states[model, kind] = kind()
        return state


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
