"""A harness for tests of log followers: a job's log, its follower, and a process that writes the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from infraforge_runner.jobs.log_follower import MAX_PART_BYTES, LogFollower, LogPart
from infraforge_runner.jobs.watch import Watcher
from pipeline.events.cursor import Cursor
from tests.writer import Writer, open_writer

NEVER = 1000.0  # seconds


class FollowedJob:
    def __init__(self, path: Path, watcher: Watcher) -> None:
        self.path = path
        self.is_finished = False
        self.last_detach_count = 0
        self.log = LogFollower(path, lambda: self.is_finished, watcher)
        self.log.on_last_detach = self._count_last_detach
        self.log._watch.poll_interval = NEVER  # so that only file events count
        self.writer: Writer

    def _count_last_detach(self) -> None:
        self.last_detach_count += 1

    def finish(self) -> None:
        self.is_finished = True
        self.log.refresh()


@asynccontextmanager
async def followed_job(folder: Path) -> AsyncIterator[FollowedJob]:
    """A job whose log does not exist yet, and a process that will write it."""
    (folder / "job").mkdir()
    watcher = Watcher()
    job = FollowedJob(folder / "job" / "log", watcher)
    async with open_writer(job.path) as job.writer:
        yield job
    assert job.log.readers == 0
    watcher.close()


async def read_to_end(cursor: Cursor[LogPart]) -> list[LogPart]:
    """Read all parts and check that they are contiguous."""
    parts: list[LogPart] = []
    while not cursor.ended:
        position = cursor.position
        for part in await cursor.read():
            assert part.offset == position
            assert len(part.data) <= MAX_PART_BYTES
            position = part.next_offset
            parts.append(part)
        assert cursor.position == position
    return parts


async def read_part(cursor: Cursor[LogPart]) -> bytes:
    (part,) = await cursor.read()
    return part.data


def join_parts(parts: Iterable[LogPart]) -> bytes:
    return b"".join(part.data for part in parts)
