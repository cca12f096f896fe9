"""The event log: append-only, with positions, read from any position in batches, then followed live.

Here in memory, where a position is an index. While nobody waits, an append wakes nobody and costs next to nothing.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from pipeline.errors import ForgelineError, SlowReader

T = TypeVar("T")

MAX_LAG = 1_000_000  # bytes that a cursor may be behind before the writer waits for it
PATIENCE = 1.0  # seconds that the writer waits, before it cuts such a cursor off
MAX_BATCH = 4096  # records handed out at once, so that a late reader is not served its whole past in one go


class EventLog(Generic[T]):
    """A log that keeps all its records. Its `size` is their weight in bytes, as the writer gave it."""

    def __init__(self) -> None:
        self.records: list[T] = []
        self.size = 0
        self.ended = False
        self.on_idle: Callable[[], None] | None = None  # called when the last cursor has left
        self._cursors: set[Cursor[T]] = set()
        self._readers_waiting: list[asyncio.Future[None]] = []
        self._writers_waiting: list[asyncio.Future[None]] = []
        self._uncrowded_up_to: float = MAX_LAG  # the size up to which no cursor can be too far behind

    def extend(self, records: Sequence[T], size: int = 0) -> None:
        self.records += records
        self.size += size
        if self._readers_waiting:
            _wake(self._readers_waiting)

    def end(self) -> None:
        """Says that nothing more will come."""
        self.ended = True
        _wake(self._readers_waiting)

    def attach(self, position: int = 0) -> Cursor[T]:
        """A cursor whose first record is the one at `position`. Close it: it is a context manager."""
        cursor = Cursor(self, position)
        self._cursors.add(cursor)
        return cursor

    @property
    def readers(self) -> int:
        return len(self._cursors)

    @property
    def crowded(self) -> bool:
        """Whether a cursor is so far behind that the writer should `pace` itself."""
        if self.size <= self._uncrowded_up_to:
            return False
        slowest = min((cursor.seen for cursor in self._cursors), default=self.size)
        self._uncrowded_up_to = MAX_LAG + min(slowest, self.size)
        return self.size > self._uncrowded_up_to

    async def pace(self) -> int:
        """Lets cursors that are too far behind catch up, for `PATIENCE` at most; then cuts them off: so many."""
        try:
            async with asyncio.timeout(PATIENCE):
                while self.crowded:
                    moved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._writers_waiting.append(moved)
                    await moved
        except TimeoutError:
            laggards = [cursor for cursor in self._cursors if self.size - cursor.seen > MAX_LAG]
            for cursor in laggards:
                cursor.cut(SlowReader("This reader was too far behind and was cut off; resume the stream to go on."))
            return len(laggards)
        return 0

    def _detach(self, cursor: Cursor[T]) -> None:
        if cursor in self._cursors:
            self._cursors.remove(cursor)
            self._moved()
            if not self._cursors and self.on_idle is not None:
                self.on_idle()

    def _moved(self) -> None:
        """A cursor has caught up, or left."""
        if self._writers_waiting:
            _wake(self._writers_waiting)


class Cursor(Generic[T]):
    """One reader's place in a log.

    A reader that comes late may be far behind: only once it has caught up does `seen`, the size of the
    log at its last read, begin to count, and a lag can make the writer wait.
    """

    def __init__(self, log: EventLog[T], position: int) -> None:
        self.position = position
        self.seen = math.inf if position < len(log.records) else log.size
        self.on_cut: Callable[[], None] | None = None
        self._log = log
        self._waiting: asyncio.Future[None] | None = None
        self._error: ForgelineError | None = None

    @property
    def ended(self) -> bool:
        """Whether all has been read that will ever come."""
        return self._log.ended and self.position >= len(self._log.records)

    async def read(self) -> Sequence[T]:
        """All that came since the last read, at most `MAX_BATCH` records; waits where that is nothing.

        Empty when `nudge`d, and at the end. Raises the error that the cursor was cut off with.
        """
        log = self._log
        if self._error is None and self.position >= len(log.records) and not log.ended:
            self._waiting = asyncio.get_running_loop().create_future()
            log._readers_waiting.append(self._waiting)
            try:
                await self._waiting
            finally:
                if self._waiting in log._readers_waiting:  # nudged or cancelled: the log did not take it out
                    log._readers_waiting.remove(self._waiting)
                self._waiting = None
        if self._error is not None:
            raise self._error
        if len(log.records) - self.position > MAX_BATCH:
            await asyncio.sleep(0)  # there is much to catch up with: the others have their turn
        batch = log.records[self.position : self.position + MAX_BATCH]
        self.position += len(batch)
        if self.position >= len(log.records):
            self.seen = log.size
            log._moved()
        return batch

    def nudge(self) -> None:
        """Makes a `read` that waits return empty-handed."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def cut(self, error: ForgelineError) -> None:
        """Ends this cursor, also in the middle of a `read`: every read from now on raises `error`."""
        self._error, on_cut = error, self.on_cut
        self.close()
        self.nudge()
        if on_cut is not None:
            on_cut()

    def close(self) -> None:
        self.on_cut = None  # what it holds holds this cursor: without that, the collector need not come for either
        self._log._detach(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class Lagged(Exception):
    """This reader fell off the feed, or comes from the feed of another life: it needs a new snapshot."""


@dataclass(frozen=True, slots=True)
class News:
    """One message of the feed: which topic it belongs to, and what it says."""

    topic: str
    message: Mapping[str, Any]


class Feed:
    """The change feed: a ring, so that it never waits for a reader. `id` is this server's life."""

    def __init__(self, kept: int = 1000) -> None:
        self.id = secrets.token_hex(8)
        self.next = 0
        self._ring: deque[News] = deque(maxlen=kept)
        self._waiting: list[asyncio.Future[None]] = []

    def append(self, topic: str, message: Mapping[str, Any]) -> None:
        self._ring.append(News(topic, message))
        self.next += 1
        _wake(self._waiting)

    def after(self, position: int) -> Sequence[News]:
        """What came from `position` on. Raises Lagged where some of that is gone, or never was."""
        behind = self.next - position
        if not 0 <= behind <= len(self._ring):
            raise Lagged
        return [self._ring[index] for index in range(len(self._ring) - behind, len(self._ring))]

    async def wait(self, position: int) -> None:
        """Returns when there is something at `position`."""
        while self.next <= position:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                await future
            finally:
                if future in self._waiting:  # cancelled: nobody took it out
                    self._waiting.remove(future)


def _wake(waiting: list[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)
    waiting.clear()
