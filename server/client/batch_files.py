"""The two files of a batch: input lines, read one by one, and output records, only ever appended.

The records alone tell which lines are completed, so a batch resumes after any end, `kill -9` included.
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

from server.client.api import encode_json
from server.client.errors import OperationFailed, UsageError

MAX_LINE_BYTES = 128 * 1024 * 1024  # more than servers accept
SKIP_BLOCK_BYTES = 1024 * 1024
RECORD_PREFIX = b'{"line":'  # the first bytes of every record


@dataclass(frozen=True)
class InputLine:
    """One line of the input: its number, from 1, and its bytes; empty if the line is too long to be read."""

    number: int
    content: bytes

    @cached_property
    def digest(self) -> int:
        """64 bits that identify the content, to detect that the input was changed. Never 0."""
        return int.from_bytes(hashlib.blake2b(self.content, digest_size=8).digest(), "big") | 1


class RecordHeader(msgspec.Struct):
    """The fields of a record that tell which line it belongs to (`input` is the digest, in hex) and if it failed."""

    line: int
    input: str
    error: Any = None


def read_lines(path: Path) -> Iterator[InputLine]:
    """Yield the lines that are not blank. At most one is in memory."""
    with path.open("rb") as file:
        number = 0
        while content := file.readline(MAX_LINE_BYTES):
            number += 1
            if len(content) == MAX_LINE_BYTES and not content.endswith(b"\n"):
                while (skipped := file.readline(SKIP_BLOCK_BYTES)) and not skipped.endswith(b"\n"):
                    pass
                content = b""
            elif not content.strip():
                continue
            yield InputLine(number, content.strip())


def count_lines(path: Path) -> int:
    return sum(1 for _ in read_lines(path))


class CompletedLines:
    """The lines that have a record, and how many of them failed. Takes 8 bytes per line."""

    def __init__(self) -> None:
        self._digests = array("Q")  # index: line number - 1; 0: no record
        self.count = 0
        self.failed = 0

    def add(self, number: int, digest: int) -> bool:
        """Return False if the line has a record already."""
        missing = number - len(self._digests)
        if missing > 0:
            self._digests.extend([0] * missing)
        if self._digests[number - 1]:
            return False
        self._digests[number - 1] = digest
        self.count += 1
        return True

    def has(self, line: InputLine) -> bool:
        """Whether the line has a record. Raises UsageError if the record belongs to another line's content."""
        digest = self._digests[line.number - 1] if line.number <= len(self._digests) else 0
        if digest and digest != line.digest:
            raise UsageError(
                f"Line {line.number} of the input is not the one that the output has a record of: the input has"
                " changed since. Give the changed input an output of its own."
            )
        return bool(digest)


class BatchOutput:
    """The output file, locked for one batch. A context manager.

    Opening it truncates a last record that was written only in part and, with `drop_failed`, removes failed records.
    Raises UsageError if another batch holds the file, or if it is not the output of a batch.
    """

    def __init__(self, path: Path, *, drop_failed: bool = False) -> None:
        self._path = path
        try:
            self._file = _open_locked(path)
            try:
                self.completed = self._load()
                if drop_failed and self.completed.failed:
                    self._file = self._rewrite_without_failed()
                    self.completed = self._load()
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise UsageError(f"{path} can't be written: {error.strerror}.") from error

    def append(self, line: InputLine, record: Mapping[str, Any]) -> None:
        """Write a line's record. Raises OperationFailed if that fails; the line then counts as not completed."""
        content = memoryview(encode_json({"line": line.number, "input": f"{line.digest:016x}", **record}) + b"\n")
        try:
            while content:
                content = content[os.write(self._file.fileno(), content) :]
        except OSError as error:
            raise OperationFailed(f"{self._path} can't be written: {error.strerror}.") from error
        self.completed.add(line.number, line.digest)
        self.completed.failed += record.get("error") is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        os.fsync(self._file.fileno())
        self._file.close()

    def _load(self) -> CompletedLines:
        completed, valid_size = CompletedLines(), 0
        for content in self._file:
            if not content.endswith(b"\n"):
                if content[: len(RECORD_PREFIX)] != RECORD_PREFIX[: len(content)]:
                    raise self._not_a_batch_output()
                break
            record = self._decode_record(content)
            if not completed.add(record.line, int(record.input, 16)):
                raise UsageError(
                    f"{self._path} has two records of line {record.line}; it was not written by one batch."
                )
            completed.failed += record.error is not None
            valid_size += len(content)
        self._file.truncate(valid_size)
        return completed

    def _decode_record(self, content: bytes) -> RecordHeader:
        try:
            record = msgspec.json.decode(content, type=RecordHeader)
            if record.line > 0 and int(record.input, 16):
                return record
        except ValueError:
            pass
        raise self._not_a_batch_output()

    def _not_a_batch_output(self) -> UsageError:
        return UsageError(
            f"{self._path} is there already, and is not the output of a batch; nothing was written to it."
        )

    def _rewrite_without_failed(self) -> BinaryIO:
        """Replace the file atomically by one without the failed records. Returns the new file."""
        new_path = self._path.with_name(self._path.name + ".new")
        new_path.unlink(missing_ok=True)
        new_file = _open_locked(new_path)
        self._file.seek(0)
        for content in self._file:
            if self._decode_record(content).error is None:
                new_file.write(content)
        new_file.flush()
        os.fsync(new_file.fileno())
        new_path.replace(self._path)
        self._file.close()
        new_file.seek(0)
        return new_file


def _open_locked(path: Path) -> BinaryIO:
    """Open a file for reading and appending, with a lock that ends with this process. Raises UsageError."""
    file = path.open("a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # False if another batch has replaced the file since it was opened here.
        is_current = os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        is_current = False
    if not is_current:
        file.close()
        raise UsageError(f"Another batch is writing to {path}; one output can have only one at a time.")
    file.seek(0)
    return file


def check_distinct(source: Path, target: Path) -> None:
    """Raises UsageError if both paths are the same file."""
    if target.exists() and target.samefile(source):
        raise UsageError(f"{source} and {target} are one file; the output needs one of its own.")
