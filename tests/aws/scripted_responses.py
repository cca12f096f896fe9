"""Scripted responses of the endpoint. tests/aws/__init__.py describes them."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from tests.upstream import CUT, Cut

__all__ = ["BAD_CHECKSUM", "CUT", "Cut"]

USAGE: Final[Mapping[str, int]] = {"inputTokens": 3, "outputTokens": 2}


@dataclass(frozen=True)
class ReasoningText:
    text: str


@dataclass(frozen=True)
class ToolUse:
    """A tool call of the model."""

    id: str
    name: str
    input: Mapping[str, Any]


@dataclass(frozen=True)
class StreamException:
    """An exception in mid-stream."""

    member: str
    message: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class StreamError:
    """An error event that is not in the service's model."""

    code: str
    message: str


class BadChecksum:
    """In a list of pieces: a message with a wrong checksum."""


BAD_CHECKSUM: Final = BadChecksum()

Piece = (
    str
    | bytes
    | dict[str, Any]
    | asyncio.Event
    | Cut
    | ReasoningText
    | ToolUse
    | StreamException
    | StreamError
    | BadChecksum
)


@dataclass(frozen=True)
class TextResponse:
    pieces: tuple[Piece, ...]
    stop_reason: str | None = "end_turn"
    usage: Mapping[str, int] | None = field(default_factory=lambda: USAGE)
    cut_at: int | None = None
    block_size: int | None = None
    part_sizes: Sequence[int] | None = None
    sse: bool | None = None
    done: bool | None = None

    @property
    def text(self) -> str:
        return "".join(piece for piece in self.pieces if isinstance(piece, str))

    @property
    def reasoning(self) -> str:
        return "".join(piece.text for piece in self.pieces if isinstance(piece, ReasoningText))

    def index_of(self, *kinds: type) -> int | None:
        """The index of the first piece of these classes; None if there is none."""
        return next((index for index, piece in enumerate(self.pieces) if isinstance(piece, kinds)), None)


@dataclass(frozen=True)
class ErrorResponse:
    code: str
    message: str
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    after: asyncio.Event | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordedRequest:
    """A received request. `target` is the model or endpoint that it names, `key` the access key that signed it.

    `headers` are case-insensitive.
    """

    operation: str
    service: str
    region: str
    headers: Mapping[str, str]
    body: Any
    target: str = ""
    key: str = ""


ScriptedResponse = TextResponse | ErrorResponse
Responder = ScriptedResponse | Callable[[RecordedRequest], ScriptedResponse]


def text_response(*pieces: Piece, **options: Any) -> TextResponse:
    return TextResponse(pieces, **options)


def reasoning(text: str) -> ReasoningText:
    return ReasoningText(text)


def tool_use(id: str, name: str, **input: Any) -> ToolUse:
    return ToolUse(id, name, input)


def stream_exception(member: str, message: str = "The stream broke.", **fields: Any) -> StreamException:
    return StreamException(member, message, fields)


def stream_error(code: str, message: str = "An error that is not in the service's model.") -> StreamError:
    return StreamError(code, message)


def hanging_response() -> TextResponse:
    return text_response(asyncio.Event())


def error_response(
    code: str,
    message: str = "",
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    after: asyncio.Event | None = None,
    **fields: Any,
) -> ErrorResponse:
    return ErrorResponse(code, message or f"{code}, as scripted.", status, headers or {}, after, fields)


class ResponseScript:
    """Decides which response comes next."""

    def __init__(self) -> None:
        self.default: Responder = text_response("Hello", " world")
        self.by_target: dict[str, Responder] = {}
        self._queues: defaultdict[str, deque[Responder]] = defaultdict(deque)

    def enqueue(self, target: str, *responders: Responder) -> None:
        """Set the responses of the next calls of this target (or operation), one each."""
        self._queues[target].extend(responders)

    def next_failure(self, request: RecordedRequest) -> ErrorResponse | None:
        """The error that is queued for the next call of this operation, if any."""
        if not self._queues[request.operation]:
            return None
        responder = self._queues[request.operation].popleft()
        response = responder(request) if callable(responder) else responder
        assert isinstance(response, ErrorResponse), f"{request.operation} can only be scripted to fail"
        return response

    def next_response(self, request: RecordedRequest, *targets: str) -> ScriptedResponse:
        """The response to an inference: of the first of these names that has one, or the default."""
        names = [*targets, request.operation]
        queued = next((self._queues[name] for name in names if self._queues[name]), None)
        scripted = next((self.by_target[name] for name in names if name in self.by_target), self.default)
        responder = queued.popleft() if queued else scripted
        return responder(request) if callable(responder) else responder
