"""Follows a log that another process writes: one `LogFollower` per file, however many readers it has.

A position is a byte offset. The follower decides up to which offset the log may be read; each reader gets there at its
own pace, in parts. The parts read last are cached, so readers at the same offset share one part and its encodings, and
a reader that is behind reads the file by itself. No reader delays another or the writer, and memory is bounded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infraforge_runner.jobs.log_file import LogFile, incomplete_character_length
from infraforge_runner.jobs.watch import Watch, Watcher
from pipeline.errors import ForgelineError
from pipeline.events.cursor import BaseLog, Cursor, wake_all

MAX_PART_BYTES = 65_536
PARTIAL_LINE_DELAY = 1.0  # seconds after which a line without an end may be read
CHECK_INTERVAL = 0.01  # seconds between two checks of a file that is being written
MAX_CACHED_PARTS = 16  # a reader that is further behind reads the file, in larger parts


@dataclass(eq=False, slots=True)
class LogPart:
    """A piece of a log."""

    offset: int
    data: bytes
    _encodings: dict[Hashable, bytes] = field(default_factory=dict)

    @property
    def next_offset(self) -> int:
        return self.offset + len(self.data)

    def encoded_as(self, form: Hashable, encode: Callable[[LogPart], bytes]) -> bytes:
        """Return the part in this form, encoded once for all readers. All forms are kept, so there must be few."""
        encoded = self._encodings.get(form)
        if encoded is None:
            encoded = self._encodings[form] = encode(self)
        return encoded


class LogFollower(BaseLog[LogPart]):
    """The log of one job. It opens the file for its first reader and closes it after its last.

    `is_finished` says whether the writer has written its last byte; call `refresh` when that may have changed. A part
    ends after its last line feed or carriage return (progress bars redraw with the latter). A line without an end may
    be read after `PARTIAL_LINE_DELAY`, or when it is longer than a part. No part ends inside a character that may
    still become valid. Once the writer has finished, all of the file may be read.
    """

    def __init__(self, path: Path, is_finished: Callable[[], bool], watcher: Watcher) -> None:
        super().__init__()
        self._end = 0
        self._is_finished = is_finished
        self._file = LogFile(path)
        self._watch = Watch(watcher, [path.parent], self._check_and_pause, debounce=0, only_writes=True)
        self._parts: dict[int, LogPart] = {}
        self._partial_line_timer: asyncio.TimerHandle | None = None

    @property
    def end(self) -> int:
        return self._end

    def attach(self, position: int = 0) -> Cursor[LogPart]:
        cursor = super().attach(position)
        if len(self._cursors) == 1:
            try:
                if not self._is_finished():
                    self._watch.start()
                self._check()
            except BaseException:
                cursor.close()
                raise
        return cursor

    def refresh(self) -> None:
        """Check the file and `is_finished` soon."""
        self._watch.trigger()

    def abort_readers(self, error: ForgelineError) -> None:
        for cursor in list(self._cursors):
            cursor.abort(error)

    def _detach(self, cursor: Cursor[LogPart]) -> None:
        if self._cursors == {cursor}:
            self._close()
        super()._detach(cursor)

    def _close(self) -> None:
        self._watch.cancel()
        self._stop_timer()
        self._file.close()
        self._parts.clear()
        self._end, self.ended = 0, False

    # --- how far readers may read ------------------------------------------------------------------

    async def _check_and_pause(self) -> None:
        self._check()
        await asyncio.sleep(CHECK_INTERVAL)

    def _check(self) -> None:
        is_finished = self._is_finished()  # before the size, so that all that was written until then counts
        size = self._file.size()
        if is_finished:
            self._stop_timer()
            self._advance(size, ended=True)
            self._watch.cancel()
        elif size > self._end:
            self._advance(self._end_of_last_line(size))
            if self._partial_line_timer is None and self._file.end_of_last_character(size) > self._end:
                self._partial_line_timer = asyncio.get_running_loop().call_later(
                    PARTIAL_LINE_DELAY, self._advance_to_partial_line
                )

    def _end_of_last_line(self, size: int) -> int:
        """The offset after the last new line end; `end` where there is none, unless the line is longer than a part."""
        start = max(self._end, size - MAX_PART_BYTES)
        data = self._file.read(start, size - start)
        if length := _length_of_lines(data):
            return start + length
        return self._end if size - self._end < MAX_PART_BYTES else size - incomplete_character_length(data)

    def _advance(self, end: int, *, ended: bool = False) -> None:
        if end > self._end or ended:
            self._stop_timer()  # a later partial line gets the whole delay
            self._end, self.ended = max(end, self._end), ended
            wake_all(self._waiting_readers)

    def _advance_to_partial_line(self) -> None:
        self._partial_line_timer = None
        self._advance(self._file.end_of_last_character(self._file.size()))

    def _stop_timer(self) -> None:
        if self._partial_line_timer is not None:
            self._partial_line_timer.cancel()
            self._partial_line_timer = None

    # --- what readers get --------------------------------------------------------------------------

    def _take(self, cursor: Cursor[LogPart]) -> Sequence[LogPart]:
        part = self._part_at(cursor.position)
        if part is not None:
            cursor.position = part.next_offset
        cursor.is_behind = cursor.position < self._end
        return () if part is None else (part,)

    def _part_at(self, offset: int) -> LogPart | None:
        part = self._parts.get(offset)
        if part is None and offset < self._end:
            data = self._file.read(offset, min(self._end - offset, MAX_PART_BYTES))
            if offset + len(data) < self._end:
                data = data[: _length_of_lines(data) or len(data) - incomplete_character_length(data)]
            if data:
                if len(self._parts) >= MAX_CACHED_PARTS:
                    del self._parts[next(iter(self._parts))]
                part = self._parts[offset] = LogPart(offset, data)
        return part


def _length_of_lines(data: bytes) -> int:
    """The number of bytes up to and including the last line end."""
    return max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
