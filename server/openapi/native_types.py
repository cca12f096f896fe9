"""Types of the responses and events of our own API. They only describe: tests validate real responses against them.

A docstring here is a description in the document, and a class's name is the name of its schema, so both are public.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Milliseconds = Annotated[float, Meta(description="milliseconds")]
StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "content_filter", "other"]

T = TypeVar("T", bound=type[Struct])


def schema_name(name: str) -> Callable[[T], T]:
    """Set a type's schema name, where another class of the product has the name that clients know."""

    def rename(cls: T) -> T:
        cls.__name__ = name  # msgspec takes the schema's name from here
        return cls

    return rename


# --- the envelope ----------------------------------------------------------------------------------


class RequestSummary(Struct):
    """The request, as asked."""

    text: str
    frames_count: int
    media_type: Literal["image", "video"]
    max_tokens: int
    temperature: float | None


class TextContent(Struct):
    type: Literal["text"]
    text: str


class TokenUsage(Struct):
    """As the provider counted; null where it does not, and those of its cache only where it tells them."""

    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | UnsetType = UNSET
    cache_write_tokens: int | UnsetType = UNSET


@schema_name("ModelResponse")
class ModelResponseSchema(Struct):
    """`id` and `model` are the upstream's own names, where it gives any."""

    id: str
    model: str
    content: list[TextContent]
    stop_reason: StopReason
    usage: TokenUsage


class AnswerMetadata(Struct):
    """`model` answered, in place of `fallback_from` where that is there; `sent` is what was not sent as asked."""

    request_id: str
    model: str
    provider: str
    time_to_first_token_ms: Milliseconds | None
    duration_ms: Milliseconds
    overhead_ms: Milliseconds
    fallback_from: str | UnsetType = UNSET
    sent: dict[str, Any] | UnsetType = UNSET


class Envelope(Struct):
    """An answer."""

    time: Time
    request: RequestSummary
    response: ModelResponseSchema
    metadata: AnswerMetadata


class ErrorBody(Struct):
    """An error: `error` is a sentence that a person can act on, `code` a stable word."""

    time: Time
    request: RequestSummary | None
    error: str
    code: str
    request_id: str
    retry_after: float | UnsetType = UNSET


# --- several models --------------------------------------------------------------------------------


class Succeeded(Struct, tag_field="status", tag="success"):
    model: str
    response: ModelResponseSchema
    duration_ms: Milliseconds


@schema_name("Failed")
class FailedModelResult(Struct, tag_field="status", tag="error"):
    model: str
    error: str
    code: str
    duration_ms: Milliseconds
    retry_after: float | UnsetType = UNSET


class NotDeployed(FailedModelResult, tag_field="status", tag="not_deployed"):
    """As an error, whose sentence holds the line that deploys the model."""


class MultiMetadata(Struct):
    request_id: str
    duration_ms: Milliseconds


class MultiAnswer(Struct):
    """`results` come in the order in which the models were asked for."""

    time: Time
    request: RequestSummary
    results: list[Succeeded | FailedModelResult | NotDeployed]
    metadata: MultiMetadata


# --- events ----------------------------------------------------------------------------------------


class StartEvent(Struct, tag_field="type", tag="start"):
    """The first of every stream, exactly once."""

    seq: int
    stream_id: str
    request: RequestSummary
    models: list[str]


class ChunkEvent(Struct, tag_field="type", tag="chunk"):
    """A piece of an answer."""

    seq: int
    model: str
    delta: str


class ResultEvent(Envelope, tag_field="type", tag="result", kw_only=True):
    """The whole envelope of one model: its text is exactly the chunks, joined."""

    seq: int
    model: str


class ErrorEvent(Struct, tag_field="type", tag="error"):
    """One model's failure. Made by the connection (`slow_reader`), it has no `seq`."""

    model: str
    error: str
    code: str
    seq: int | UnsetType = UNSET
    retry_after: float | UnsetType = UNSET


class CompleteEvent(Struct, tag_field="type", tag="complete"):
    """The last of every stream, exactly once: one without it was cut."""

    seq: int


class HeartbeatEvent(Struct, tag_field="type", tag="heartbeat"):
    """After a time of silence. Made by the connection: it has no `seq`."""


Event = StartEvent | ChunkEvent | ResultEvent | ErrorEvent | CompleteEvent | HeartbeatEvent

# --- models ----------------------------------------------------------------------------------------

Availability = Literal[
    "available", "unknown", "unavailable", "not_deployed", "in_progress", "failed", "deleting", "removed"
]


class Capabilities(Struct):
    text: bool
    image: bool
    video: bool
    stream: bool


class RecentAnswer(Struct):
    """How one of a model's last answers went; the times are null where there was none."""

    ok: bool
    time_to_first_token_ms: Milliseconds | None
    duration_ms: Milliseconds | None


class Model(Struct):
    """A preset: `name` is what requests call it, `model` what its provider does. `recent` has the oldest first.

    `breaker` is there while the pipeline has `circuit_breaker`. Installed stages and providers may add fields.
    """

    name: str
    provider: str
    model: str
    capabilities: Capabilities
    limits: dict[str, float]
    availability: Availability
    reason: str | None
    recent: list[RecentAnswer]
    breaker: Literal["closed", "half_open", "open"] | UnsetType = UNSET


class ModelList(Struct):
    models: list[Model]


class EmdModel(Struct):
    """A model that EMD can deploy, and the line that does."""

    name: str
    model: str
    tag: str
    region: str | None
    capabilities: Capabilities
    limits: dict[str, float]
    instance: str | None
    engine: str | None
    service: str | None
    command: str


class EmdModelList(Struct):
    models: list[EmdModel]


@schema_name("EmdDeployment")
class EmdDeploymentSchema(Struct):
    name: str
    model: str
    tag: str
    region: str | None
    status: Literal["deployed", "in_progress", "failed", "deleting", "not_deployed", "unknown"]
    stack: str | None
    instance: str | None
    engine: str | None
    service: str | None
    endpoint: str | None
    reason: str | None


class EmdStatus(Struct):
    models: list[EmdDeploymentSchema]


class Health(Struct):
    status: Literal["ok", "ready"]
