"""The two files of a batch: lines that are read one by one, and records that are only ever appended.

The records say by themselves what is done, so that a batch goes on after any end, a kill -9 included.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Self

import msgspec

from server.client.api import to_json
from server.client.errors import Failed, Misused

MAX_LINE = 128 * 1024 * 1024  # bytes of a line: more than servers take
BLOCK = 1024 * 1024
HEAD = b'{"line":'  # every record begins so


@dataclass(frozen=True)
class Line:
    """One line of the input: its number, from 1, and its bytes; empty where it is too long to be read."""

    number: int
    content: bytes

    @cached_property
    def mark(self) -> int:
        """Tells this line from another that might stand in its place later. Never 0."""
        return int.from_bytes(hashlib.blake2b(self.content, digest_size=8).digest(), "big") | 1


class Record(msgspec.Struct):
    """What of a record says which line it answers, and whether that failed."""

    line: int
    input: str
    error: Any = None


def read_lines(path: Path) -> Iterator[Line]:
    """The lines that are not blank. Never more than one is held."""
    with path.open("rb") as file:
        number = 0
        while content := file.readline(MAX_LINE):
            number += 1
            if len(content) == MAX_LINE and not content.endswith(b"\n"):
                while (more := file.readline(BLOCK)) and not more.endswith(b"\n"):
                    pass
                content = b""
            elif not content.strip():
                continue
            yield Line(number, content.strip())


def count_lines(path: Path) -> int:
    return sum(1 for _ in read_lines(path))


class Done:
    """Which lines have their record: 8 bytes for each line, whatever its length."""

    def __init__(self) -> None:
        self._marks = array("Q")
        self.count = 0
        self.failed = 0

    def add(self, number: int, mark: int) -> bool:
        """False where that line has its record already."""
        missing = number - len(self._marks)
        if missing > 0:
            self._marks.extend([0] * missing)
        if self._marks[number - 1]:
            return False
        self._marks[number - 1] = mark
        self.count += 1
        return True

    def has(self, line: Line) -> bool:
        """Raises Misused where the record is that of another line."""
        mark = self._marks[line.number - 1] if line.number <= len(self._marks) else 0
        if mark and mark != line.mark:
            raise Misused(
                f"Line {line.number} of the input is not the one that the output has a record of: the input has"
                " changed since. Give the changed input an output of its own."
            )
        return bool(mark)


class Records:
    """The output. Held by one batch at a time; a context manager.

    Opening it cuts off a last record that was only half written; with `drop_failed`, takes failed ones out.
    Raises Misused where it is another batch's now, or no batch's at all.
    """

    def __init__(self, path: Path, *, drop_failed: bool = False) -> None:
        self._path = path
        try:
            self._file = _locked(path)
            try:
                self.done = self._read()
                if drop_failed and self.done.failed:
                    self._file = self._without_failed()
                    self.done = self._read()
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise Misused(f"{path} can't be written: {error.strerror}.") from error

    def append(self, line: Line, record: Mapping[str, Any]) -> None:
        """Writes a line's record. Raises Failed where that is not possible: then it counts as not done."""
        content = memoryview(to_json({"line": line.number, "input": f"{line.mark:016x}", **record}) + b"\n")
        try:
            while content:
                content = content[os.write(self._file.fileno(), content) :]
        except OSError as error:
            raise Failed(f"{self._path} can't be written: {error.strerror}.") from error
        self.done.add(line.number, line.mark)
        self.done.failed += record.get("error") is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.fsync(self._file.fileno())
        self._file.close()

    def _read(self) -> Done:
        done, whole = Done(), 0
        for content in self._file:
            if not content.endswith(b"\n"):
                if content[: len(HEAD)] != HEAD[: len(content)]:
                    raise self._no_batch()
                break
            record = self._decoded(content)
            if not done.add(record.line, int(record.input, 16)):
                raise Misused(f"{self._path} has two records of line {record.line}; it was not written by one batch.")
            done.failed += record.error is not None
            whole += len(content)
        self._file.truncate(whole)
        return done

    def _decoded(self, content: bytes) -> Record:
        try:
            record = msgspec.json.decode(content, type=Record)
            if record.line > 0 and int(record.input, 16):
                return record
        except ValueError:
            pass
        raise self._no_batch()

    def _no_batch(self) -> Misused:
        return Misused(f"{self._path} is there already, and is not the output of a batch; nothing was written to it.")

    def _without_failed(self) -> BinaryIO:
        """The same records but the failed ones, in a new file that takes this one's place at once."""
        beside = self._path.with_name(self._path.name + ".new")
        beside.unlink(missing_ok=True)
        kept = _locked(beside)
        self._file.seek(0)
        for content in self._file:
            if self._decoded(content).error is None:
                kept.write(content)
        kept.flush()
        os.fsync(kept.fileno())
        beside.replace(self._path)
        self._file.close()
        kept.seek(0)
        return kept


def _locked(path: Path) -> BinaryIO:
    """The file, to be read and appended to by nobody else: the lock ends with its process, however that ends."""
    file = path.open("a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_there = os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        is_there = False
    if not is_there:  # or another batch has just put a new file in its place
        file.close()
        raise Misused(f"Another batch is writing to {path}; one output can have only one at a time.")
    file.seek(0)
    return file


def check_apart(source: Path, output: Path) -> None:
    """Raises Misused where both are one file."""
    if output.exists() and output.samefile(source):
        raise Misused(f"{source} and {output} are one file; the output needs one of its own.")
