"""What stands in a model's preset and in the pipeline's. docs/PRESETS.md tells users the same, key by key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from pipeline.schema import Natural, Positive, SchemaError, check
from pipeline.store import Kind

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Rate = Annotated[float, Meta(gt=0, le=1_000_000)]
Capability = Literal["text", "image", "video", "stream"]


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What a model takes: tokens to answer with, frames in a request, bytes and pixels of each, bytes of a video."""

    max_tokens: Positive = 4096
    temperature: Annotated[float, Meta(ge=0, le=2)] = 2.0
    frames: Natural = 20
    frame_bytes: Positive = 3_932_160
    frame_pixels: Positive = 64_000_000
    video_bytes: Positive = 25_000_000


class Timeouts(Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds: to connect, until the first token, and of silence between tokens."""

    connect: Seconds = 5.0
    first_token: Seconds = 120.0
    between_tokens: Seconds = 30.0


class PerKey(Struct, frozen=True, forbid_unknown_fields=True):
    """What each API key may have of a model: calls at once, and calls begun in a second."""

    calls: Positive | None = None
    per_second: Rate | None = None


class Concurrency(Struct, frozen=True, forbid_unknown_fields=True):
    """Calls at once and begun in a second, and how many more may wait. None: no limit."""

    calls: Positive | None = None
    queue: Natural = 64
    per_second: Rate | None = None
    per_key: PerKey = PerKey()

    @property
    def is_open(self) -> bool:
        """Whether nothing is limited."""
        return self.calls is None and self.per_second is None and self.per_key == PerKey()


class Retrying(Struct, frozen=True, forbid_unknown_fields=True):
    """Calls in all, before the first token; seconds that they and the pauses may take; the longest first pause."""

    attempts: Positive = 3
    deadline: Seconds = 10.0
    backoff: Seconds = 0.25


class Breaking(Struct, frozen=True, forbid_unknown_fields=True):
    """Failures in a row after which a model is not asked, and for how many seconds."""

    failures: Positive = 5
    seconds: Seconds = 10.0


class Deploy(Struct, frozen=True, forbid_unknown_fields=True):
    """How `emd deploy` deploys this model: EMD's instance type, engine and service."""

    instance: str
    engine: str = "vllm"
    service: str = "sagemaker_realtime"


class ModelPreset(Struct, frozen=True, forbid_unknown_fields=True):
    """`models/NAME.yaml`. What each key means stands in docs/PRESETS.md."""

    provider: str
    model: str
    base_url: str | None = None
    api_key_env: str | None = None
    region: str | None = None
    tag: str = "dev"
    capabilities: tuple[Capability, ...] = ("text", "stream")
    limits: Limits = Limits()
    refuses: tuple[Literal["temperature", "top_p", "stop"], ...] = ()
    timeouts: Timeouts = Timeouts()
    concurrency: Concurrency = Concurrency()
    retry: Retrying = Retrying()
    breaker: Breaking = Breaking()
    fallback: tuple[str, ...] = ()
    deploy: Deploy | None = None


class StageSpec(Struct, frozen=True):
    """One item of the pipeline: a stage's name and its options."""

    name: str
    options: dict[str, Any] = {}


class PipelinePreset(Struct, frozen=True):
    """`pipeline.yaml`: the stages, in the order in which data meets them."""

    stages: tuple[StageSpec, ...]


class UnusablePipeline(SchemaError):
    """This list of stages can never answer anything: a server does not start with it."""


class PipelineFile(Struct, forbid_unknown_fields=True):
    """`pipeline.yaml` as it is written: an item is a stage's name, or one name with its options."""

    stages: list[str | dict[str, dict[str, Any]]]


DEFAULT_STAGES = (
    "decode_frames",
    "fallback",
    "route_model",
    "fit_frames",
    "limit",
    "circuit_breaker",
    "retry",
    "invoke",
    "normalize_envelope",
)
"""What holds where there is no pipeline.yaml."""


def parse_pipeline(value: Any, check_stage: Callable[[StageSpec], None]) -> PipelinePreset:
    """`check_stage` raises ValueError for a stage that nobody provides, or that refuses its options."""
    specs: list[StageSpec] = []
    for index, item in enumerate(check(value, PipelineFile).stages):
        spec = _stage_spec(item, index)
        try:
            check_stage(spec)
        except ValueError as error:
            raise UnusablePipeline(("stages", index), str(error)) from error
        specs.append(spec)
    names = [spec.name for spec in specs]
    if names.count("invoke") != 1:
        raise UnusablePipeline(("stages",), "exactly one of the stages has to be invoke")
    if names[-1] != "normalize_envelope" or names.count("normalize_envelope") != 1:
        raise UnusablePipeline(("stages",), "normalize_envelope has to stand there once, as the last stage")
    for index, spec in enumerate(specs):
        if spec in specs[:index]:  # a limit would wait for itself
            raise UnusablePipeline(("stages", index), f"{spec.name} stands here a second time")
    if "route_model" in names and names.index("route_model") > names.index("invoke"):
        raise UnusablePipeline(("stages",), "route_model has to stand before invoke")
    return PipelinePreset(tuple(specs))


def _stage_spec(item: str | dict[str, dict[str, Any]], index: int) -> StageSpec:
    if isinstance(item, str):
        return StageSpec(item)
    if len(item) != 1:
        raise SchemaError(("stages", index), "expected a stage's name, or one name with its options")
    ((name, options),) = item.items()
    return StageSpec(name, options)


MODELS: Kind[ModelPreset] = Kind("model", "models", lambda value: check(value, ModelPreset))


def pipeline_kind(check_stage: Callable[[StageSpec], None]) -> Kind[PipelinePreset]:
    return Kind("pipeline", "", lambda value: parse_pipeline(value, check_stage), single="pipeline")
