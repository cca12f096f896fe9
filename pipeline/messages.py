"""What travels through the pipeline, in the order in which data meets it.

Frames and messages make a request; a request becomes an `Inference`, which stages hand on in changed
copies; a provider answers it with a `Reply`, and the last stage turns that into `Events`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

from pipeline.errors import ForgelineError
from pipeline.frames import EncodedFrame, Frame, Video
from pipeline.presets import ModelPreset

T = TypeVar("T")

MediaType = Literal["image", "video"]
StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "content_filter", "other"]

# --- what is asked ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of one of the request's tools, which the model asked for. `arguments` is JSON text, as it wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What came of the call with this `id`. It stands in a message of the user's."""

    id: str
    text: str
    failed: bool = False


@dataclass(frozen=True)
class Message:
    """One turn. Its parts are text, pictures, a video, or calls of tools and their results, in order.

    `decode_frames` leaves no picture encoded.
    """

    role: Literal["user", "assistant"]
    parts: tuple[str | EncodedFrame | Frame | Video | ToolCall | ToolResult, ...]

    @property
    def text(self) -> str:
        return "\n".join(part for part in self.parts if isinstance(part, str))

    @property
    def frames(self) -> tuple[Frame, ...]:
        """The pictures that are decoded."""
        return tuple(part for part in self.parts if isinstance(part, Frame))

    @cached_property
    def shown(self) -> int:
        """How many pictures and videos, decoded or not."""
        return sum(isinstance(part, EncodedFrame | Frame | Video) for part in self.parts)

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        return tuple(part for part in self.parts if isinstance(part, ToolCall))

    @property
    def results(self) -> tuple[ToolResult, ...]:
        return tuple(part for part in self.parts if isinstance(part, ToolResult))

    @property
    def video(self) -> Video | None:
        """The whole video file, where there is one."""
        return next((part for part in self.parts if isinstance(part, Video)), None)


@dataclass(frozen=True, slots=True)
class Parameters:
    """How to answer. None: not said, so not sent.

    `extras` are fields of OpenAI's shape that only upstreams of that shape take; they are passed on as they came.
    """

    max_tokens: int = 1024
    temperature: float | None = 0.1
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the model may ask to be called. `parameters` is the JSON Schema of its arguments.

    `strict`: whether the arguments have to keep to it; None: not said.
    """

    name: str
    description: str | None
    parameters: Mapping[str, Any]
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether a tool has to be called: as the model likes, some one, none, or the one with this `name`."""

    kind: Literal["auto", "required", "none", "named"] = "auto"
    name: str = ""


@dataclass(frozen=True)
class InferenceRequest:
    """One question, as asked, whoever answers it.

    `owner` tells those who ask apart; `received` is when the last byte came (monotonic seconds).
    """

    messages: tuple[Message, ...]
    parameters: Parameters = Parameters()
    system: str | None = None
    media_type: MediaType = "image"
    request_id: str = ""
    owner: str = ""
    received: float = field(default_factory=time.monotonic)
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()

    @cached_property
    def wants(self) -> tuple[str, ...]:
        """What not every provider takes, by the names of the fields."""
        tools = self.tools or any(message.calls or message.results for message in self.messages)
        # A seed is a wish by its own definition: who can't follow it answers all the same.
        return (*(("tools",) if tools else ()), *(name for name in self.parameters.extras if name != "seed"))

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """The `request` that envelopes and errors show."""
        return summarize(self.messages, self.media_type, self.parameters)


def summarize(messages: tuple[Message, ...], media_type: MediaType, parameters: Parameters) -> dict[str, Any]:
    return {
        "text": messages[-1].text,
        "frames_count": messages[-1].shown,
        "media_type": media_type,
        "max_tokens": parameters.max_tokens,
        "temperature": parameters.temperature,
    }


# --- what answers ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of the model's thinking, which it gives apart from its answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallPiece:
    """A piece of a tool call; `index` counts the calls of one answer from 0.

    The first piece of each has its `id` and `name`, the others are more of its `arguments` (JSON text, cut anywhere).
    """

    index: int
    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, as the provider counted them; those of its cache where it tells them."""

    input_tokens: int | None
    output_tokens: int | None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Stop:
    """Why the model stopped."""

    reason: StopReason


Chunk = str | Reasoning | ToolCallPiece
"""A piece of an answer. Text is a bare `str`: per token nothing is cheaper."""

Part = Chunk | Usage | Stop
"""What a provider's reply is made of, as it comes."""

Close = Callable[[], Awaitable[None] | None]


class Closing(Generic[T]):
    """An async iterable of batches that can be closed at any point, and then closes what it holds.

    A batch is what came at once. One by one, each token would pay for the whole way anew: 1.2 µs.

    `__aiter__` hands out the generator itself, so iterating costs nothing extra. `aclose()` of a
    generator that was never started runs none of its code, `finally` included; so what has to be
    given back (a connection, a permit, the thing that is wrapped) is held here.
    """

    def __init__(self, batches: AsyncGenerator[Sequence[T], None], *close: Close) -> None:
        self._batches = batches
        self._held = close

    def __aiter__(self) -> AsyncIterator[Sequence[T]]:
        return self._batches

    def hold(self, close: Close) -> None:
        """Holds one thing more, to be given back at the close."""
        self._held = (*self._held, close)

    async def aclose(self) -> None:
        """Closes the generator, then what it holds, each once, in that order. Only the task that iterates may."""
        held, self._held = self._held, ()
        await _close_all(self._batches.aclose, *held)


async def _close_all(close: Close, *others: Close) -> None:
    try:
        waiting = close()
        if waiting is not None:
            await waiting
    finally:
        if others:
            await _close_all(*others)


class Reply(Closing[Part]):
    """What a provider answers, in batches, its first chunk already there.

    `id` and `model` are the upstream's own names, where it gives any; `streamed` says whether it came in pieces.
    """

    def __init__(
        self,
        batches: AsyncGenerator[Sequence[Part], None],
        *close: Close,
        id: str = "",
        model: str = "",
        streamed: bool,
    ) -> None:
        super().__init__(batches, *close)
        self.id = id
        self.model = model
        self.streamed = streamed


# --- an inference on its way -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Route:
    """Who is to answer: a model by its preset."""

    model: str
    preset: ModelPreset


@dataclass(frozen=True, slots=True)
class Call:
    """An upstream call that has begun to answer. Times are monotonic seconds."""

    reply: Reply
    began: float
    first_chunk: float


@dataclass(frozen=True, slots=True)
class Inference:
    """One request on its way to one model. Frozen: a stage hands on a changed copy, so a retry starts clean.

    `asked` is the model that the client named, under which events are told; `model` the one that is to answer.
    `messages` and `parameters` are what will be sent; what was asked stays in `request`. `failed_calls` is shared by
    all copies: the seconds that upstream calls took which came to nothing.
    """

    request: InferenceRequest
    asked: str
    model: str
    models: Mapping[str, ModelPreset]
    messages: tuple[Message, ...]
    parameters: Parameters
    routed: Route | None = None
    called: Call | None = None
    failed_calls: list[float] = field(default_factory=list)

    @property
    def route(self) -> Route:
        """Set by `route_model`."""
        if self.routed is None:
            raise LookupError("no route yet: in pipeline.yaml, route_model has to stand before this stage")
        return self.routed

    @property
    def call(self) -> Call:
        """Set by `invoke`."""
        if self.called is None:
            raise LookupError("no call yet: in pipeline.yaml, invoke has to stand before this stage")
        return self.called


# --- what a client is told -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Result:
    """A model's whole answer: the envelope that a plain answer consists of, and the tools it wants called."""

    model: str
    envelope: dict[str, Any]
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """A model's failure, in place of its result. `at` is in monotonic seconds."""

    model: str
    error: ForgelineError
    at: float = field(default_factory=time.monotonic)


Event = str | ToolCallPiece | Result | Failure
"""What stages tell: a piece of text or of a tool call, the whole answer, or why there is none."""


class Events(Closing[Event]):
    """What a stage returns, in batches. A stage that wraps another's events holds their `aclose`.

    One that only has something to give back at their end adds it by `hold`, and returns them as they are.
    """
