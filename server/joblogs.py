"""Where in a job's log a client begins to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from infraforge_runner.logfile import LogFile
from infraforge_runner.runner import JobRunner
from infraforge_runner.tail import LogCursor
from pipeline.errors import InvalidRequest

MAX_DIGITS = 15  # of a number in a query


@dataclass(frozen=True, slots=True)
class Beginning:
    """At a byte, or at so many last lines, or, with neither, at the first byte."""

    offset: int | None = None
    lines: int | None = None

    @classmethod
    def of_query(cls, arguments: Mapping[str, str | None], lines: str) -> Self:
        """Of a query's arguments; `lines` is the name by which this address has the last lines.

        Raises InvalidRequest.
        """
        return cls.of({name: _number(value) for name, value in arguments.items() if value is not None}, lines)

    @classmethod
    def of(cls, body: Mapping[str, Any], lines: str) -> Self:
        """The same, of an op's fields."""
        offset, last = _count(body, "from", "a byte offset"), _count(body, lines, "a number of last lines")
        if offset is not None and last is not None:
            raise InvalidRequest(f"from, {lines}: expected one of the two, not both.")
        return cls(offset, last)

    async def within(self, file: LogFile, size: int) -> int:
        """The offset, in a log of so many bytes. Raises InvalidRequest where the log does not reach there."""
        if self.lines is not None:
            return await file.start_of_last_lines(self.lines, size)
        offset = self.offset or 0
        if offset > size:
            raise InvalidRequest(f"from: expected at most {size}, the bytes that this log has now.")
        return offset


async def follow(jobs: JobRunner, job_id: str, beginning: Beginning) -> LogCursor:
    """A cursor that follows this job's log from there; close it. Raises UnknownJob, InvalidRequest."""
    with LogFile(jobs.log_path(job_id)) as file:
        offset = await beginning.within(file, file.size())
    return jobs.tail(job_id).attach(offset)


def _count(body: Mapping[str, Any], name: str, expected: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidRequest(f"{name}: expected {expected}, 0 or more.")
    return value


def _number(value: str) -> int | str:
    """A query's value, as a number where it is one."""
    return int(value) if value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS else value
