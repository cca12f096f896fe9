"""A job's log as a file: append-only, written by another process, read by byte offset."""

from __future__ import annotations

import asyncio
import codecs
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

BLOCK_BYTES = 65_536  # read at once on the event loop (docs/PERFORMANCE.md)


class LogFile:
    """A log opened for reading once it exists; before that it is empty. A context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def size(self) -> int:
        if self._fd is None:
            try:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return 0
        return os.fstat(self._fd).st_size

    def read(self, offset: int, count: int) -> bytes:
        """Return at most `count` bytes from `offset`."""
        return b"" if self._fd is None else os.pread(self._fd, count, offset)

    def iter_blocks(self, start: int, end: int) -> Iterator[bytes]:
        """Yield these bytes in blocks. Raises OSError where the file has become shorter."""
        while start < end:
            block = self.read(start, min(end - start, BLOCK_BYTES))
            if not block:
                raise OSError(f"{self._path} has become shorter while it was read")
            yield block
            start += len(block)

    def end_of_last_character(self, size: int) -> int:
        """Return `size` without an incomplete character at its end, whose rest may still be written."""
        start = max(0, size - 3)
        return size - incomplete_character_length(self.read(start, size - start))

    async def find_last_lines(self, lines: int, size: int) -> int:
        """Return the offset of the last `lines` lines of the first `size` bytes. Yields to other tasks between blocks.

        A last line without a line feed counts as a line. A carriage return does not end a line.
        """
        if lines == 0:
            return size
        end = max(0, size - 1)  # the line feed at the end of the last line does not count
        while end > 0:
            start = max(0, end - BLOCK_BYTES)
            block = self.read(start, end - start)
            count = block.count(b"\n")
            if count >= lines:
                position = len(block)
                for _ in range(lines):
                    position = block.rfind(b"\n", 0, position)
                return start + position + 1
            lines, end = lines - count, start
            await asyncio.sleep(0)
        return 0

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def incomplete_character_length(data: bytes) -> int:
    """Return the number of bytes at the end that are the start of a UTF-8 character and may still become valid."""
    end = data[-3:]
    return len(end) - codecs.utf_8_decode(end, "replace", False)[1]
