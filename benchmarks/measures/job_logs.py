"""The log of a job with one or many followers, at Forgeline and at a bare server."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import forgeline
from benchmarks.clients import followers
from benchmarks.effort import Effort
from benchmarks.harness import Harness, MeasureError
from benchmarks.outcome import Outcome
from benchmarks.processes import ServerProcess, module_command

JOB_TIMEOUT = 15  # seconds between the end of a script and the end of its job
LINE_TEXT = (
    " resource AWS::SageMaker::Cluster is being created, and so is all that it depends on; please wait a while ..."
)
# Forgeline's message around a line, so that both sides deliver the same bytes.
LOG_MESSAGE = (
    '{{"type":"log","job_id":"00000000-0000-4000-8000-000000000000","offset":10000,"next_offset":10130,"text":"{}"}}'
)


@dataclass(frozen=True)
class LogSource:
    """Where a log is followed, and where its lines are written."""

    process: ServerProcess
    path: str
    lines_file: Path
    line: str


@dataclass(frozen=True)
class FollowLoad:
    """`gap`: seconds between two lines; 0: the next line is written when the first follower has the last one."""

    followers: int
    seconds: float
    gap: float = 0

    def measure(self, source: LogSource, harness: Harness, effort: Effort) -> Outcome:
        plan = followers.Plan(
            port=source.process.port,
            path=source.path,
            lines_file=str(source.lines_file),
            line=source.line,
            processes=harness.measured_processes(source.process.pid),
            followers=effort.limit_clients(self.followers),
            seconds=self.seconds * effort.scale,
            gap=self.gap,
        )
        return harness.run_client("clients.followers", plan)


@dataclass(frozen=True)
class JobLog:
    """A live job whose script prints lines on demand, with timestamps."""

    load: FollowLoad

    def __call__(self, harness: Harness, effort: Effort) -> Outcome:
        process = harness.target("forgeline").process
        pipe = forgeline.log_pipe(harness.work_dir / "forgeline")
        if not pipe.exists():
            os.mkfifo(pipe)
        with running_job(process.port) as job_id:
            source = LogSource(process, f"/ws/hyperpod/jobs/{job_id}/logs?lines=0", pipe, LINE_TEXT)
            return self.load.measure(source, harness, effort)


@contextmanager
def running_job(port: int) -> Iterator[str]:
    """Run a job that ends when the writer of its pipe closes it. Yields its id. Raises MeasureError."""
    body: dict[str, object] = {"preset": forgeline.LOG_PRESET, "dry_run": False}
    job_id: str = forgeline.call(port, "/api/hyperpod/deploy", body)["job"]["job_id"]
    path = f"/api/hyperpod/jobs/{job_id}"
    try:
        yield job_id
    except BaseException:
        forgeline.call(port, f"{path}/cancel", {})
        raise
    deadline = time.monotonic() + JOB_TIMEOUT
    while (status := forgeline.call(port, path)["job"]["status"]) in ("queued", "running"):
        if time.monotonic() > deadline:
            raise MeasureError(f"the job is still {status}")
        time.sleep(0.02)


@dataclass(frozen=True)
class BareLog:
    """A bare Tornado server that fans out lines of a named pipe, or follows a file with watchdog."""

    load: FollowLoad
    is_file: bool = False

    def __call__(self, harness: Harness, effort: Effort) -> Outcome:
        folder = harness.work_dir / f"log-{os.urandom(4).hex()}"
        folder.mkdir()
        lines = folder / "log"
        (lines.touch if self.is_file else partial(os.mkfifo, lines))()
        process = ServerProcess(module_command("floors.log_server", str(lines)), harness.target_core, folder / "stderr")
        try:
            source = LogSource(process, "/", lines, LOG_MESSAGE.format("{stamp}" + LINE_TEXT))
            return self.load.measure(source, harness, effort)
        finally:
            process.stop()
