"""Types of the answers and events of our own API: what is sent is made of them, and described from them.

A docstring here is a description in the API's document, and a class's name is the name of a schema, so both are public.
"""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from pipeline.envelope import AnswerMetadata, EnvelopeResponse, Milliseconds, RequestSummary, Time
from pipeline.presets.schema import schema_name


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
    response: EnvelopeResponse
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


ModelResult = Succeeded | FailedModelResult | NotDeployed


class MultiMetadata(Struct):
    request_id: str
    duration_ms: Milliseconds


class MultiAnswer(Struct):
    """`results` come in the order in which the models were asked for."""

    time: Time
    request: RequestSummary
    results: list[ModelResult]
    metadata: MultiMetadata


# --- events ----------------------------------------------------------------------------------------


class StartEvent(Struct, tag_field="type", tag="start"):
    """The first of every stream, exactly once."""

    seq: int
    stream_id: str
    request: RequestSummary
    models: tuple[str, ...]


class ToolCallChunk(Struct):
    """The first piece of each call has its `id` and `name`. `arguments` is JSON text, cut anywhere."""

    index: int
    id: str
    name: str
    arguments: str


class ChunkEvent(Struct, tag_field="type", tag="chunk"):
    """A piece of an answer: of its text, or of a tool call, and then `delta` is empty."""

    seq: int
    model: str
    delta: str
    tool_call: ToolCallChunk | UnsetType = UNSET


class ResultEvent(Struct, tag_field="type", tag="result"):
    """The whole envelope of one model: its text is exactly the chunks, joined."""

    seq: int
    model: str
    time: Time
    request: RequestSummary
    response: EnvelopeResponse
    metadata: AnswerMetadata


class ErrorEvent(Struct, tag_field="type", tag="error", kw_only=True):
    """One model's failure. Made by the connection, it has no `seq`; of a rejected message, no `model` either."""

    seq: int | UnsetType = UNSET
    model: str | UnsetType = UNSET
    error: str
    code: str
    retry_after: float | UnsetType = UNSET


class CompleteEvent(Struct, tag_field="type", tag="complete"):
    """The last of every stream, exactly once: one without it was cut. Made by the connection, it has no `seq`."""

    seq: int | UnsetType = UNSET


class HeartbeatEvent(Struct, tag_field="type", tag="heartbeat"):
    """After a time of silence. Made by the connection: it has no `seq`."""


StreamEvent = StartEvent | ChunkEvent | ResultEvent | ErrorEvent | CompleteEvent | HeartbeatEvent

# --- models ----------------------------------------------------------------------------------------

AvailabilityStatus = Literal[
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
    availability: AvailabilityStatus
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
    """`version` is on /healthz only."""

    status: Literal["ok", "ready"]
    version: str | UnsetType = UNSET
