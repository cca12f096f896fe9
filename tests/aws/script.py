"""What the endpoint is told to answer. tests/aws/__init__.py describes it."""

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
class Thought:
    text: str


@dataclass(frozen=True)
class Called:
    """A tool that the model wants called."""

    id: str
    name: str
    input: Mapping[str, Any]


@dataclass(frozen=True)
class Raised:
    """An exception in mid-stream."""

    member: str
    message: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Erred:
    """An error event that no model knows."""

    code: str
    message: str


class BadChecksum:
    """Here comes a message whose checksum is wrong."""


BAD_CHECKSUM: Final = BadChecksum()

Piece = str | bytes | dict[str, Any] | asyncio.Event | Cut | Thought | Called | Raised | Erred | BadChecksum


@dataclass(frozen=True)
class Says:
    pieces: tuple[Piece, ...]
    stop: str | None = "end_turn"
    usage: Mapping[str, int] | None = field(default_factory=lambda: USAGE)
    cut_at: int | None = None
    block: int | None = None
    parts: Sequence[int] | None = None
    sse: bool | None = None
    done: bool | None = None

    @property
    def text(self) -> str:
        return "".join(piece for piece in self.pieces if isinstance(piece, str))

    @property
    def thoughts(self) -> str:
        return "".join(piece.text for piece in self.pieces if isinstance(piece, Thought))

    def first(self, *kinds: type) -> int | None:
        """Where the first piece of these kinds is."""
        return next((at for at, piece in enumerate(self.pieces) if isinstance(piece, kinds)), None)


@dataclass(frozen=True)
class Fails:
    code: str
    message: str
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    after: asyncio.Event | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Asked:
    """A request as it came. `target` is the model or endpoint it names; `key` the access key that signed it. The
    headers' names are those of any case.
    """

    operation: str
    service: str
    region: str
    headers: Mapping[str, str]
    body: Any
    target: str = ""
    key: str = ""


Said = Says | Fails
Answer = Said | Callable[[Asked], Said]


def says(*pieces: Piece, **how: Any) -> Says:
    return Says(pieces, **how)


def thinks(text: str) -> Thought:
    return Thought(text)


def calls(id: str, name: str, **input: Any) -> Called:
    return Called(id, name, input)


def raises(member: str, message: str = "The stream broke.", **fields: Any) -> Raised:
    return Raised(member, message, fields)


def errs(code: str, message: str = "An error that no model knows.") -> Erred:
    return Erred(code, message)


def hangs() -> Says:
    return says(asyncio.Event())


def fails(
    code: str,
    message: str = "",
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    after: asyncio.Event | None = None,
    **fields: Any,
) -> Fails:
    return Fails(code, message or f"{code}, as the test wants it.", status, headers or {}, after, fields)


class Script:
    """Which answer comes next."""

    def __init__(self) -> None:
        self.answer: Answer = says("Hello", " world")
        self.answers: dict[str, Answer] = {}
        self._queues: defaultdict[str, deque[Answer]] = defaultdict(deque)

    def next(self, target: str, *answers: Answer) -> None:
        """Answers for the next calls of this target (or operation), one each."""
        self._queues[target].extend(answers)

    def failure(self, asked: Asked) -> Fails | None:
        """What the next call of this operation was told to fail with."""
        if not self._queues[asked.operation]:
            return None
        answer = self._queues[asked.operation].popleft()
        said = answer(asked) if callable(answer) else answer
        assert isinstance(said, Fails), f"{asked.operation} can only be told to fail"
        return said

    def said(self, asked: Asked, *targets: str) -> Said:
        """The answer to an inference, for the first of these names that has one."""
        names = [*targets, asked.operation]
        queued = next((self._queues[name] for name in names if self._queues[name]), None)
        scripted = next((self.answers[name] for name in names if name in self.answers), self.answer)
        answer = queued.popleft() if queued else scripted
        return answer(asked) if callable(answer) else answer
