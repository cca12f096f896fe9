"""The envelope: the body of an answer, as clients get it, and how its numbers are made safe for them.

The API's description is made from these types: a docstring is a description in it, and a class's name the name of a
schema, so both are public. They are dicts at run time: a stage may add a field of its own to `metadata`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta

from pipeline.presets.schema import MAX_SAFE_INTEGER, schema_name

MediaType = Literal["image", "video"]
StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "content_filter", "other"]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Milliseconds = Annotated[float, Meta(description="milliseconds")]


def safe_integer(value: int | None) -> int | None:
    """None for an integer that JavaScript cannot hold exactly, so that no client reads a wrong number."""
    return value if value is None or -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER else None


class RequestSummary(TypedDict):
    """The request, as asked. `max_tokens` is null where the client set none."""

    text: str
    frames_count: int
    media_type: MediaType
    max_tokens: int | None
    temperature: float | None


class TextContent(TypedDict):
    type: Literal["text"]
    text: str


class TokenUsage(TypedDict):
    """As the provider counted; null where it does not, and those of its cache only where it tells them."""

    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: NotRequired[int]
    cache_write_tokens: NotRequired[int]


@schema_name("ModelResponse")
class EnvelopeResponse(TypedDict):
    """`id` and `model` are the upstream's own names, where it gives any."""

    id: str
    model: str
    content: list[TextContent]
    stop_reason: StopReason
    usage: TokenUsage


class AnswerMetadata(TypedDict):
    """`model` answered, in place of `fallback_from` where that is there; `sent` is what was not sent as asked."""

    request_id: str
    model: str
    provider: str
    time_to_first_token_ms: Milliseconds | None
    duration_ms: Milliseconds
    overhead_ms: Milliseconds
    fallback_from: NotRequired[str]
    sent: NotRequired[dict[str, Any]]


class Envelope(TypedDict):
    """An answer."""

    time: Time
    request: RequestSummary
    response: EnvelopeResponse
    metadata: AnswerMetadata
