"""The event log in memory: append-only, read in batches from any position, and followed live.

A position is an index. While no reader waits, an append wakes nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TypeVar

from pipeline.errors import SlowReader
from pipeline.events.cursor import BaseLog, Cursor, wake_all

T = TypeVar("T")

MAX_LAG = 1_000_000  # bytes that a cursor may be behind before the writer waits for it
LAG_TIMEOUT = 1.0  # seconds that the writer waits before it aborts such a cursor
MAX_BATCH = 4096  # records in one batch, so that a late reader is not sent the whole log at once


class EventLog(BaseLog[T]):
    """A log that keeps all its records. `size` is their weight in bytes, as the writer gave it.

    The writer waits only for cursors that had caught up once and then fell behind. A cursor that starts in the middle
    of a long log and is still catching up delays nobody.
    """

    def __init__(self) -> None:
        super().__init__()
        self.records: list[T] = []
        self.size = 0
        self._sizes_read: dict[Cursor[T], int] = {}  # `size` when the cursor last caught up
        self._next_lag_check = MAX_LAG  # no cursor can lag before `size` is beyond this
        self._waiting_writers: set[asyncio.Future[None]] = set()

    @property
    def end(self) -> int:
        return len(self.records)

    def extend(self, records: Sequence[T], size: int = 0) -> None:
        self.records += records
        self.size += size
        if self._waiting_readers:
            wake_all(self._waiting_readers)

    def finish(self) -> None:
        """Declare that no more records will come."""
        self.ended = True
        wake_all(self._waiting_readers)

    def attach(self, position: int = 0) -> Cursor[T]:
        cursor = super().attach(position)
        if position >= self.end:
            self._sizes_read[cursor] = self.size
        return cursor

    @property
    def has_lagging_cursor(self) -> bool:
        """Whether the writer should wait for a cursor. Cheap: cursors are compared once per `MAX_LAG` bytes."""
        if self.size <= self._next_lag_check:
            return False
        self._next_lag_check = MAX_LAG + min(self._sizes_read.values(), default=self.size)
        return self.size > self._next_lag_check

    async def wait_for_lagging_cursors(self) -> int:
        """Wait until they have caught up, at most `LAG_TIMEOUT`, then abort them. Returns how many were aborted."""
        try:
            async with asyncio.timeout(LAG_TIMEOUT):
                while self.has_lagging_cursor:
                    moved: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiting_writers.add(moved)
                    await moved
        except TimeoutError:
            lagging = [cursor for cursor, size in self._sizes_read.items() if self.size - size > MAX_LAG]
            for cursor in lagging:
                cursor.abort(SlowReader("This reader was too far behind and was cut off; resume the stream to go on."))
            return len(lagging)
        return 0

    def _take(self, cursor: Cursor[T]) -> Sequence[T]:
        batch = self.records[cursor.position : cursor.position + MAX_BATCH]
        if not batch:
            return batch
        cursor.position += len(batch)
        cursor.is_behind = cursor.position < len(self.records)
        if not cursor.is_behind:
            self._sizes_read[cursor] = self.size
            if self._waiting_writers:
                wake_all(self._waiting_writers)
        return batch

    def _detach(self, cursor: Cursor[T]) -> None:
        self._sizes_read.pop(cursor, None)
        if self._waiting_writers:
            wake_all(self._waiting_writers)
        super()._detach(cursor)
