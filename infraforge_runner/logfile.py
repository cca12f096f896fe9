"""A job's log as a file: append-only, written by another process, read by byte offset."""

from __future__ import annotations

import asyncio
import codecs
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Self

BLOCK = 65_536  # bytes read at once on the event loop: from the page cache, in some 10 µs


class LogFile:
    """A log that is open for reading, once it is there; before that it is empty. A context manager."""

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
        """As many of these bytes as there are."""
        return b"" if self._fd is None else os.pread(self._fd, count, offset)

    def blocks(self, start: int, end: int) -> Iterator[bytes]:
        """These bytes, block by block. Raises OSError where the file has become shorter."""
        while start < end:
            block = self.read(start, min(end - start, BLOCK))
            if not block:
                raise OSError(f"{self._path} has become shorter while it was read")
            yield block
            start += len(block)

    def end_of_characters(self, size: int) -> int:
        """`size`, less the beginning of a character at the very end whose rest may still be written."""
        start = max(0, size - 3)
        return size - unfinished(self.read(start, size - start))

    async def start_of_last_lines(self, lines: int, size: int) -> int:
        """Where the last lines of the first `size` bytes begin, sought from the end; other tasks get their turns.

        A last line without a line feed counts as one; a carriage return ends none.
        """
        if lines == 0:
            return size
        end = max(0, size - 1)  # a line feed at the very end begins no line
        while end > 0:
            start = max(0, end - BLOCK)
            block = self.read(start, end - start)
            found = block.count(b"\n")
            if found >= lines:
                position = len(block)
                for _ in range(lines):
                    position = block.rfind(b"\n", 0, position)
                return start + position + 1
            lines, end = lines - found, start
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


def unfinished(data: bytes) -> int:
    """How many bytes at the very end begin a UTF-8 character that could still become valid."""
    end = data[-3:]
    return len(end) - codecs.utf_8_decode(end, "replace", False)[1]
