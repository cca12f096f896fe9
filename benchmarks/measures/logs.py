"""A job's log, followed by one or by many; and the same from a bare server."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import product
from benchmarks.clients import followers
from benchmarks.effort import Effort
from benchmarks.outcome import Outcome
from benchmarks.proc import Served, module
from benchmarks.world import MeasureFailed, World

ENDS_WITHIN = 15  # seconds for a job to end, once its script has
TEXT = " resource AWS::SageMaker::Cluster is being created, and so is all that it depends on; please wait a while ..."
# What Forgeline's message has around a line: with it, the bytes that both deliver are the same.
AROUND = (
    '{{"type":"log","job_id":"00000000-0000-4000-8000-000000000000","offset":10000,"next_offset":10130,"text":"{}"}}'
)


@dataclass(frozen=True)
class Source:
    """Where a log is followed, and what has a line written into it."""

    served: Served
    path: str
    lines: Path
    line: str


@dataclass(frozen=True)
class Following:
    """`gap` is the seconds between two lines; 0: the next comes as soon as the first follower has the last."""

    followers: int
    seconds: float
    gap: float = 0

    def of(self, source: Source, world: World, effort: Effort) -> Outcome:
        plan = followers.Plan(
            port=source.served.port,
            path=source.path,
            lines=str(source.lines),
            line=source.line,
            watched=world.watched(source.served.pid),
            followers=effort.clients(self.followers),
            seconds=self.seconds * effort.scale,
            gap=self.gap,
        )
        return world.client("clients.followers", plan)


@dataclass(frozen=True)
class JobLog:
    """A live job, whose script says each line when it is told to, with the time at which it says it."""

    following: Following

    def __call__(self, world: World, effort: Effort) -> Outcome:
        served = world.target("forgeline").served
        pipe = product.pipe_of(world.work / "forgeline")
        if not pipe.exists():
            os.mkfifo(pipe)
        with job(served.port) as job_id:
            source = Source(served, f"/ws/hyperpod/jobs/{job_id}/logs?lines=0", pipe, TEXT)
            return self.following.of(source, world, effort)


@contextmanager
def job(port: int) -> Iterator[str]:
    """A running job, which ends when its pipe's writer has left."""
    body: dict[str, object] = {"preset": product.LINES, "dry_run": False}
    job_id: str = product.ask(port, "/api/hyperpod/deploy", body)["job"]["job_id"]
    path = f"/api/hyperpod/jobs/{job_id}"
    try:
        yield job_id
    except BaseException:
        product.ask(port, f"{path}/cancel", {})
        raise
    deadline = time.monotonic() + ENDS_WITHIN
    while (status := product.ask(port, path)["job"]["status"]) in ("queued", "running"):
        if time.monotonic() > deadline:
            raise MeasureFailed(f"the job is still {status}")
        time.sleep(0.02)


@dataclass(frozen=True)
class BareLog:
    """A bare Tornado server: from a named pipe it fans out ready frames; a file it follows by watchdog."""

    following: Following
    is_file: bool = False

    def __call__(self, world: World, effort: Effort) -> Outcome:
        folder = world.work / f"log-{os.urandom(4).hex()}"
        folder.mkdir()
        lines = folder / "log"
        (lines.touch if self.is_file else partial(os.mkfifo, lines))()
        served = Served(module("floors.lines", str(lines)), world.measured, folder / "stderr")
        try:
            source = Source(served, "/", lines, AROUND.format("{stamp}" + TEXT))
            return self.following.of(source, world, effort)
        finally:
            served.end()
