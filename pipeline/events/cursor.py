"""A reader's position in a log. There is one cursor for logs in memory and for logs in files."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, Self, TypeVar

from pipeline.errors import ForgelineError

T = TypeVar("T")


class BaseLog(ABC, Generic[T]):
    """A log that cursors read and then follow. Positions count from 0, in the unit of the subclass.

    `ended` says that no more records will come.
    """

    def __init__(self) -> None:
        self.ended = False
        self.on_last_detach: Callable[[], None] | None = None  # called when the last cursor has been closed
        self._cursors: set[Cursor[T]] = set()
        self._waiting_readers: set[asyncio.Future[None]] = set()

    @property
    @abstractmethod
    def end(self) -> int:
        """The position after the last record that may be read."""

    @property
    def readers(self) -> int:
        return len(self._cursors)

    def attach(self, position: int = 0) -> Cursor[T]:
        """Return a cursor whose first record is the one at `position`. Close it: it is a context manager."""
        cursor = Cursor(self, position)
        self._cursors.add(cursor)
        return cursor

    @abstractmethod
    def _take(self, cursor: Cursor[T]) -> Sequence[T]:
        """Return the next records for this cursor; empty where there are none yet.

        Updates its `position`, and `is_behind`: whether the batch did not reach the end.
        """

    def _detach(self, cursor: Cursor[T]) -> None:
        if cursor in self._cursors:
            self._cursors.remove(cursor)
            if not self._cursors and self.on_last_detach is not None:
                self.on_last_detach()


class Cursor(Generic[T]):
    """One reader of a log. `position` is that of the first record that it has not read."""

    def __init__(self, log: BaseLog[T], position: int) -> None:
        self.position = position
        self.is_behind = False
        self.on_abort: Callable[[], None] | None = None
        self._log = log
        self._waiting: asyncio.Future[None] | None = None
        self._error: ForgelineError | None = None

    @property
    def ended(self) -> bool:
        """Whether every record has been read and no more will come."""
        return self._log.ended and self.position >= self._log.end

    async def read(self) -> Sequence[T]:
        """Return the records that came since the last read; wait where there are none.

        Empty after `wake()` and at the end. Raises the error that the cursor was aborted with.
        """
        log = self._log
        if self.is_behind:
            await asyncio.sleep(0)  # without it, a reader with a long backlog would delay all others
        if self._error is not None:
            raise self._error
        batch = log._take(self)
        if not batch and not log.ended:
            self._waiting = asyncio.get_running_loop().create_future()
            log._waiting_readers.add(self._waiting)
            try:
                await self._waiting
            finally:
                if self._waiting in log._waiting_readers:  # after wake() or a cancellation
                    log._waiting_readers.remove(self._waiting)
                self._waiting = None
            if self._error is not None:
                raise self._error
            batch = log._take(self)
        return batch

    def wake(self) -> None:
        """Make a waiting `read` return an empty batch."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def abort(self, error: ForgelineError) -> None:
        """Close the cursor. A waiting `read` and every later one raise `error`."""
        self._error, on_abort = error, self.on_abort
        self.close()
        self.wake()
        if on_abort is not None:
            on_abort()

    def close(self) -> None:
        self.on_abort = None  # breaks the reference cycle between the cursor and its owner
        self._log._detach(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def wake_all(waiting: set[asyncio.Future[None]]) -> None:
    """Resolve these futures and empty the set."""
    for future in waiting:
        if not future.done():
            future.set_result(None)
    waiting.clear()
