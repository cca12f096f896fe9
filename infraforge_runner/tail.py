"""Following a log that another process writes: one `Tail` per file, however many follow.

A position is a byte offset. The tail knows up to where the log may be handed out; each follower reads up to there at
its own pace, by way of the few parts that were read last. So followers who are at the same place share one part and
what it was encoded as, and one who is behind reads the file by itself, until it is where the others are. The writer
waits for nobody, nobody waits for a follower, and nothing grows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from infraforge_runner.logfile import LogFile, unfinished
from infraforge_runner.watch import Watch, Watcher
from pipeline.errors import ForgelineError

MAX_PART = 65_536  # bytes that are handed out at once
REST_AFTER = 1.0  # seconds after which a rest is handed out that has no line end yet
PAUSE = 0.01  # seconds between two looks at a file that is being written
KEPT = 16  # parts; who is further behind reads the file, and so gets larger ones


@dataclass(eq=False, slots=True)
class LogPart:
    """A piece of a log."""

    offset: int
    data: bytes
    _encoded: dict[Hashable, bytes] = field(default_factory=dict)

    @property
    def next_offset(self) -> int:
        return self.offset + len(self.data)

    def encoded_as(self, form: Hashable, encode: Callable[[LogPart], bytes]) -> bytes:
        """The part in this form, encoded once for all followers. Of forms there may be few: all are kept."""
        encoded = self._encoded.get(form)
        if encoded is None:
            encoded = self._encoded[form] = encode(self)
        return encoded


class Tail:
    """The log of one job, followed. It opens the file for its first follower, and closes it with its last.

    `ended` says whether the writer has written its last byte; `look` tells that this may have changed. A part is cut
    after its last line feed or carriage return (progress bars redraw by those); a rest without one is handed out after
    `REST_AFTER`, or when it is longer than a part; no part ends inside a character that may still become whole. Once
    the writer has ended, all is handed out.
    """

    def __init__(self, path: Path, ended: Callable[[], bool], watcher: Watcher) -> None:
        self.end = 0  # up to here the log may be handed out
        self.complete = False  # whether that is all that there will ever be
        self.on_idle: Callable[[], None] | None = None  # called when the last follower has left
        self._ended = ended
        self._file = LogFile(path)
        self._watch = Watch(watcher, [path.parent], self._look_and_pause, settle=0, only_writes=True)
        self._cursors: set[LogCursor] = set()
        self._waiting: set[asyncio.Future[None]] = set()
        self._parts: dict[int, LogPart] = {}
        self._rest_timer: asyncio.TimerHandle | None = None

    @property
    def followers(self) -> int:
        return len(self._cursors)

    def attach(self, offset: int = 0) -> LogCursor:
        """A cursor whose first byte is the one at `offset`. Close it: it is a context manager."""
        cursor = LogCursor(self, offset)
        self._cursors.add(cursor)
        if len(self._cursors) == 1:
            try:
                if not self._ended():
                    self._watch.start()
                self._look()
            except BaseException:
                cursor.close()
                raise
        return cursor

    def look(self) -> None:
        """Says that the job's state has changed."""
        self._watch.nudge()

    def cut(self, error: ForgelineError) -> None:
        """Ends all followers with this error."""
        for cursor in list(self._cursors):
            cursor.cut(error)

    def _detach(self, cursor: LogCursor) -> None:
        if cursor in self._cursors:
            self._cursors.remove(cursor)
            if not self._cursors:
                self._close()

    def _close(self) -> None:
        self._watch.cancel()
        self._stop_timer()
        self._file.close()
        self._parts.clear()
        self.end, self.complete = 0, False
        if self.on_idle is not None:
            self.on_idle()

    # --- up to where -----------------------------------------------------------------------------

    async def _look_and_pause(self) -> None:
        self._look()
        await asyncio.sleep(PAUSE)

    def _look(self) -> None:
        complete = self._ended()  # asked before the size: what was written before the end has to count
        size = self._file.size()
        if complete:
            self._stop_timer()
            self._hand_out(size, complete=True)
            self._watch.cancel()
        elif size > self.end:
            self._hand_out(self._end_of_lines(size))
            if self._rest_timer is None and self._file.end_of_characters(size) > self.end:
                self._rest_timer = asyncio.get_running_loop().call_later(REST_AFTER, self._hand_out_rest)

    def _end_of_lines(self, size: int) -> int:
        """Where the last line ends that is new; where none does, what has been handed out, but for a line too long."""
        start = max(self.end, size - MAX_PART)
        data = self._file.read(start, size - start)
        if lines := _length_of_lines(data):
            return start + lines
        return self.end if size - self.end < MAX_PART else size - unfinished(data)

    def _hand_out(self, end: int, *, complete: bool = False) -> None:
        if end > self.end or complete:
            self._stop_timer()  # the rest that it was for is out; a new one waits anew
            self.end, self.complete = max(end, self.end), complete
            for future in self._waiting:
                if not future.done():
                    future.set_result(None)
            self._waiting.clear()

    def _hand_out_rest(self) -> None:
        self._rest_timer = None
        self._hand_out(self._file.end_of_characters(self._file.size()))

    def _stop_timer(self) -> None:
        if self._rest_timer is not None:
            self._rest_timer.cancel()
            self._rest_timer = None

    # --- what is there ---------------------------------------------------------------------------

    def part_at(self, offset: int) -> LogPart | None:
        """The part that begins there. None where there is nothing (yet)."""
        part = self._parts.get(offset)
        if part is None and offset < self.end:
            data = self._file.read(offset, min(self.end - offset, MAX_PART))
            if offset + len(data) < self.end:
                data = data[: _length_of_lines(data) or len(data) - unfinished(data)]
            if data:
                if len(self._parts) >= KEPT:
                    del self._parts[next(iter(self._parts))]
                part = self._parts[offset] = LogPart(offset, data)
        return part


class LogCursor:
    """One follower's place in a log; `position` is the offset of the first byte that it has not read."""

    def __init__(self, tail: Tail, position: int) -> None:
        self.position = position
        self.on_cut: Callable[[], None] | None = None
        self._tail = tail
        self._waiting: asyncio.Future[None] | None = None
        self._error: ForgelineError | None = None

    @property
    def ended(self) -> bool:
        """Whether all has been read that will ever come."""
        return self._tail.complete and self.position >= self._tail.end

    async def read(self) -> Sequence[LogPart]:
        """The next part; waits where there is none yet.

        Empty when `nudge`d, and at the end. Raises the error that the cursor was cut off with.
        """
        tail = self._tail
        if self._error is None and self.position >= tail.end and not tail.complete:
            self._waiting = asyncio.get_running_loop().create_future()
            tail._waiting.add(self._waiting)
            try:
                await self._waiting
            finally:
                tail._waiting.discard(self._waiting)  # nudged or cancelled: the tail did not take it out
                self._waiting = None
        else:
            # A follower with much to read, whose client takes it at once, lets others have a turn.
            await asyncio.sleep(0)
        if self._error is not None:
            raise self._error
        part = tail.part_at(self.position)
        if part is None:
            return ()
        self.position = part.next_offset
        return (part,)

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
        self._tail._detach(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _length_of_lines(data: bytes) -> int:
    """How many bytes there are up to the last line end."""
    return max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
