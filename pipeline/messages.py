"""The types that travel through the pipeline, in the order in which data meets them.

Frames and messages make an `InferenceRequest`. For each model it becomes an `Inference`, which stages pass on in
changed copies. A provider answers with a `ModelResponse`, and the last stage turns that into an `EventStream`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar, cast

from pipeline.envelope import AnswerMetadata, Envelope, MediaType, RequestSummary, StopReason, safe_integer
from pipeline.errors import ForgelineError
from pipeline.media.frames import EncodedFrame, Frame, Video
from pipeline.presets.models import ModelPreset

T = TypeVar("T")

# --- requests --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model's call of one of the request's tools. `arguments` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of the tool call with this `id`, in a message of the user."""

    id: str
    text: str
    failed: bool = False


@dataclass(frozen=True)
class Message:
    """One turn. Its parts are text, pictures, a video, tool calls and tool results, in order.

    After the stage `decode_frames` no picture is an `EncodedFrame`.
    """

    role: Literal["user", "assistant"]
    parts: tuple[str | EncodedFrame | Frame | Video | ToolCall | ToolResult, ...]

    @property
    def text(self) -> str:
        return "\n".join(part for part in self.parts if isinstance(part, str))

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The decoded pictures."""
        return tuple(part for part in self.parts if isinstance(part, Frame))

    @cached_property
    def media_count(self) -> int:
        """The number of pictures and videos, decoded or not."""
        return sum(isinstance(part, EncodedFrame | Frame | Video) for part in self.parts)

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(part for part in self.parts if isinstance(part, ToolCall))

    @property
    def tool_results(self) -> tuple[ToolResult, ...]:
        return tuple(part for part in self.parts if isinstance(part, ToolResult))

    @property
    def video(self) -> Video | None:
        return next((part for part in self.parts if isinstance(part, Video)), None)


@dataclass(frozen=True, slots=True)
class Parameters:
    """Sampling parameters. None: not set by the client, so not sent; `max_tokens` is then the model's own limit.

    `extras` are fields of OpenAI's API that only upstreams with that API accept; they are passed on unchanged.
    """

    max_tokens: int | None = 1024
    temperature: float | None = 0.1
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may call. `parameters` is the JSON Schema of its arguments.

    `strict`: whether the arguments must match the schema; None: not set.
    """

    name: str
    description: str | None
    parameters: Mapping[str, Any]
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether the model may, must or must not call a tool, or must call the one with this `name`."""

    kind: Literal["auto", "required", "none", "named"] = "auto"
    name: str = ""


@dataclass(frozen=True)
class InferenceRequest:
    """One request, the same for all the models that answer it.

    `owner` identifies the client. `received_at` is when its last byte came, in monotonic seconds.
    """

    messages: tuple[Message, ...]
    parameters: Parameters = Parameters()
    system: str | None = None
    media_type: MediaType = "image"
    request_id: str = ""
    owner: str = ""
    received_at: float = field(default_factory=time.monotonic)
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()

    @cached_property
    def required_features(self) -> tuple[str, ...]:
        """The features that the request needs and not every provider has: `tools`, and the names of `extras`."""
        has_tools = self.tools or any(message.tool_calls or message.tool_results for message in self.messages)
        # OpenAI defines `seed` as best effort, so a provider without it can answer all the same.
        return (*(("tools",) if has_tools else ()), *(name for name in self.parameters.extras if name != "seed"))

    @cached_property
    def summary(self) -> RequestSummary:
        """The field `request` of envelopes and errors."""
        return summarize(self.messages, self.media_type, self.parameters)


def summarize(messages: tuple[Message, ...], media_type: MediaType, parameters: Parameters) -> RequestSummary:
    return {
        "text": messages[-1].text,
        "frames_count": messages[-1].media_count,
        "media_type": media_type,
        "max_tokens": safe_integer(parameters.max_tokens),
        "temperature": parameters.temperature,
    }


# --- model responses -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of the model's reasoning, which providers send apart from the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call; `index` counts the calls of one answer from 0.

    The first piece of each call has its `id` and `name`. The others continue its `arguments` (JSON text, cut anywhere).
    """

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts, as the provider reports them."""

    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """The end of a response, and why the model stopped."""

    reason: StopReason


Chunk = str | Reasoning | ToolCallDelta
"""A piece of an answer. Text is a bare `str`, because that is the cheapest per token."""

ResponsePart = Chunk | Usage | Finish

Cleanup = Callable[[], Awaitable[None] | None]


class BatchStream(Generic[T]):
    """An async iterable of batches that can be closed at any point, and then runs its cleanups.

    A batch is what arrived together: passed on one by one, each token would cost a pass through every stage
    (docs/PERFORMANCE.md).

    `__aiter__` returns the generator itself, so iteration costs nothing extra. `aclose()` of a generator that was never
    started runs none of its code, not even `finally`. So what must be released (a connection, a permit, the wrapped
    stream) is a cleanup. `contextlib.AsyncExitStack` would run cleanups in reverse order.
    """

    def __init__(self, batches: AsyncGenerator[Sequence[T], None], *cleanups: Cleanup) -> None:
        self._batches = batches
        self._cleanups = cleanups

    def __aiter__(self) -> AsyncIterator[Sequence[T]]:
        return self._batches

    def add_cleanup(self, cleanup: Cleanup) -> None:
        self._cleanups = (*self._cleanups, cleanup)

    async def aclose(self) -> None:
        """Close the generator, then run each cleanup once, in order. Call it only from the task that iterates."""
        cleanups, self._cleanups = self._cleanups, ()
        await _run_all(self._batches.aclose, *cleanups)


async def _run_all(cleanup: Cleanup, *others: Cleanup) -> None:
    """Run all of them, also where one raises or the task is cancelled."""
    try:
        awaitable = cleanup()
        if awaitable is not None:
            await awaitable
    finally:
        if others:
            await _run_all(*others)


class ModelResponse(BatchStream[ResponsePart]):
    """A provider's response. Its first chunk (or its end) is already there.

    `id` and `model` are the upstream's own values, where it sends any. `streamed`: whether it came in pieces.
    """

    def __init__(
        self,
        batches: AsyncGenerator[Sequence[ResponsePart], None],
        *cleanups: Cleanup,
        id: str = "",
        model: str = "",
        streamed: bool,
    ) -> None:
        super().__init__(batches, *cleanups)
        self.id = id
        self.model = model
        self.streamed = streamed


# --- inferences ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelTarget:
    """The model that answers, and its preset."""

    model: str
    preset: ModelPreset


@dataclass(frozen=True, slots=True)
class UpstreamCall:
    """An upstream call whose first chunk has come. Times are monotonic seconds."""

    response: ModelResponse
    started_at: float
    first_chunk_at: float


@dataclass(frozen=True, slots=True)
class Inference:
    """One request on its way to one model. Frozen: a stage passes on a changed copy, so a retry starts clean.

    `requested_model` is the model that the client named; events have this name. `model` is the one that will answer.
    `messages` and `parameters` are what will be sent; those of the client stay in `request`. `invoke` calls the
    `call_guards` right before the upstream call; each may raise to prevent it. All copies share `failed_call_seconds`:
    the duration of each upstream call that failed.
    """

    request: InferenceRequest
    requested_model: str
    model: str
    models: Mapping[str, ModelPreset]
    messages: tuple[Message, ...]
    parameters: Parameters
    selected_target: ModelTarget | None = None
    started_call: UpstreamCall | None = None
    call_guards: tuple[Callable[[], None], ...] = ()
    failed_call_seconds: list[float] = field(default_factory=list)

    @property
    def failed_calls(self) -> int:
        """How many upstream calls have failed so far, those of other models (fallbacks) included.

        A stage that compares it before and after `proceed` knows whether an error is that of an upstream call.
        """
        return len(self.failed_call_seconds)

    @property
    def target(self) -> ModelTarget:
        """Set by the stage `route_model`. Raises LookupError before it."""
        if self.selected_target is None:
            raise LookupError("no route yet: in pipeline.yaml, route_model has to stand before this stage")
        return self.selected_target

    @property
    def call(self) -> UpstreamCall:
        """Set by the stage `invoke`. Raises LookupError before it."""
        if self.started_call is None:
            raise LookupError("no call yet: in pipeline.yaml, invoke has to stand before this stage")
        return self.started_call


# --- events ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Result:
    """A model's complete answer: the envelope (the body of a plain response) and the tool calls."""

    model: str
    envelope: Envelope
    tool_calls: tuple[ToolCall, ...] = ()

    def add_metadata(self, **fields: Any) -> None:
        """Add fields of a stage's own to the envelope's metadata."""
        self.envelope["metadata"].update(cast(AnswerMetadata, fields))


@dataclass(frozen=True, slots=True)
class Failure:
    """A model's failure, instead of a result. `failed_at` is in monotonic seconds."""

    model: str
    error: ForgelineError
    failed_at: float = field(default_factory=time.monotonic)


Event = str | ToolCallDelta | Result | Failure
"""A chunk of text, a piece of a tool call, the complete answer, or the failure."""


class EventStream(BatchStream[Event]):
    """What a stage returns. A stage that wraps another's events adds their `aclose` as a cleanup.

    A stage that only has something to release at their end calls `add_cleanup`, and returns the same object.
    """
