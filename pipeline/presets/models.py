"""The preset of a model, `models/NAME.yaml`. docs/PRESETS.md documents every key."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from pipeline.presets.schema import NonNegativeInt, PositiveInt, validate
from pipeline.presets.store import PresetKind

Seconds = Annotated[float, Meta(gt=0, le=86_400)]
CallsPerSecond = Annotated[float, Meta(gt=0, le=1_000_000)]
Capability = Literal["text", "image", "video", "stream"]


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What a model accepts: tokens of an answer, frames of a request, bytes and pixels of a frame, bytes of a video."""

    max_tokens: PositiveInt = 4096
    temperature: Annotated[float, Meta(ge=0, le=2)] = 2.0
    frames: NonNegativeInt = 20
    frame_bytes: PositiveInt = 3_932_160
    frame_pixels: PositiveInt = 64_000_000
    video_bytes: PositiveInt = 25_000_000


class Timeouts(Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds: to connect, until the first token, and without any token in the middle of an answer."""

    connect: Seconds = 5.0
    first_token: Seconds = 120.0
    between_tokens: Seconds = 30.0


class PerKeyLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """The limits of each API key on one model: concurrent calls, and calls started per second. None: no limit."""

    calls: PositiveInt | None = None
    per_second: CallsPerSecond | None = None


class Concurrency(Struct, frozen=True, forbid_unknown_fields=True):
    """Concurrent calls, calls started per second (None: no limit), and how many more calls may wait in the queue."""

    calls: PositiveInt | None = None
    queue: NonNegativeInt = 64
    per_second: CallsPerSecond | None = None
    per_key: PerKeyLimits = PerKeyLimits()

    @property
    def is_unlimited(self) -> bool:
        return self.calls is None and self.per_second is None and self.per_key == PerKeyLimits()


class RetryPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """Attempts in all before the first token; seconds for attempts and delays together; the longest first delay."""

    attempts: PositiveInt = 3
    deadline: Seconds = 10.0
    backoff: Seconds = 0.25


class BreakerPolicy(Struct, frozen=True, forbid_unknown_fields=True):
    """Consecutive failures that open the circuit breaker, and how many seconds it stays open."""

    failures: PositiveInt = 5
    seconds: Seconds = 10.0


class EmdDeployOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """The instance type, engine and service with which `emd deploy` deploys this model."""

    instance: str
    engine: str = "vllm"
    service: str = "sagemaker_realtime"


class ModelPreset(Struct, frozen=True, forbid_unknown_fields=True):
    """`models/NAME.yaml`. docs/PRESETS.md says what each key means."""

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
    retry: RetryPolicy = RetryPolicy()
    breaker: BreakerPolicy = BreakerPolicy()
    fallback: tuple[str, ...] = ()
    deploy: EmdDeployOptions | None = None


MODEL_PRESETS: PresetKind[ModelPreset] = PresetKind("model", "models", lambda value: validate(value, ModelPreset))
