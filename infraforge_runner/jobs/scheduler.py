"""The server's side of jobs that run: starts their supervisors, reads what those write, and finalizes orphaned jobs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from infraforge_runner.jobs.directory import JobDirectory
from infraforge_runner.jobs.log_follower import LogFollower
from infraforge_runner.jobs.model import Job, JobState, JobStatus, Outcome
from infraforge_runner.jobs.script import inherited_environment
from infraforge_runner.jobs.watch import Watch, Watcher
from pipeline.telemetry import config

log = structlog.get_logger(__name__)

POLL_SECONDS = 1.0  # between two polls of a job for which no file system event arrives
DEBOUNCE_SECONDS = 0.02  # between a file system event and the poll
SUPERVISOR = "infraforge_runner.jobs.supervisor"
_ROOT = str(Path(__file__).resolve().parents[2])

Lock = int | Literal["held", "removed"]
"""A job's lock: the descriptor that holds it now, where it was free; held by somebody else; or gone with its folder."""


@dataclass(eq=False, slots=True)
class TrackedJob:
    """A job as this server last read it, with what belongs to it in this process."""

    directory: JobDirectory
    job: Job
    watch: Watch | None = None
    supervisor: subprocess.Popen[bytes] | None = None
    log_follower: LogFollower | None = None

    @property
    def is_in_use(self) -> bool:
        """Whether its supervisor may still run, or somebody reads its log."""
        return self.watch is not None or (self.log_follower is not None and self.log_follower.readers > 0)


class JobScheduler:
    """Runs at most `max_running` jobs at once; the others wait in the order of their submission.

    `on_status_change` is called for each job whose status has changed, after that is on disk.
    """

    def __init__(self, watcher: Watcher, max_running: int, on_status_change: Callable[[TrackedJob], None]) -> None:
        self._watcher = watcher
        self._max_running = max_running
        self._on_status_change = on_status_change
        self._queue: deque[TrackedJob] = deque()
        self._running: set[TrackedJob] = set()
        self._watched: set[TrackedJob] = set()  # the finished ones too whose supervisor has not exited yet

    @property
    def unfinished_jobs(self) -> Iterator[Job]:
        return (tracked.job for tracked in (*self._queue, *self._running))

    def adopt(self, tracked: TrackedJob) -> None:
        """Take over an unfinished job of an earlier server: it is queued again, or watched."""
        if tracked.job.status.status == "queued" and (lock := tracked.directory.try_lock()) is not None:
            os.close(lock)
            self._queue.append(tracked)
            if tracked.directory.is_cancel_requested:  # the earlier server died between the request and the cancel
                self.cancel_queued(tracked)
        else:
            self._start_watching(tracked)

    def enqueue(self, tracked: TrackedJob) -> None:
        self._queue.append(tracked)

    def start_queued(self) -> None:
        """Start jobs of the queue while there is room."""
        while self._queue and len(self._running) < self._max_running:
            tracked = self._queue.popleft()
            lock = tracked.directory.try_lock()
            if lock is not None:  # else a supervisor has it already: its job is only watched
                try:
                    self._start_supervisor(tracked, lock)
                finally:
                    os.close(lock)
            self._start_watching(tracked)

    def cancel_queued(self, tracked: TrackedJob) -> None:
        """Cancel a job that has not started; one that has is cancelled by its supervisor."""
        if tracked in self._queue:
            self._queue.remove(tracked)
            self._finalize(tracked, "cancelled", "It was cancelled before it began.")

    async def close(self) -> None:
        """Stop watching; the jobs go on."""
        for tracked in list(self._watched):  # a copy: the set may change during the wait
            if tracked.watch is not None:
                await tracked.watch.close()

    # --- a job that has started ----------------------------------------------------------------------

    def _start_watching(self, tracked: TrackedJob) -> None:
        self._running.add(tracked)
        self._watched.add(tracked)
        tracked.watch = Watch(
            self._watcher,
            [tracked.directory.path],
            partial(self._poll, tracked),
            debounce=DEBOUNCE_SECONDS,
            poll_interval=POLL_SECONDS,
            only_writes=True,
        )
        tracked.watch.start()

    async def _poll(self, tracked: TrackedJob) -> None:
        """Read what the supervisor wrote, and decide what has to be done.

        Supervisor: whether a process that this server started is alive. One that an earlier server started is known
        by the lock alone, which each supervisor holds for as long as it lives.

        | status   | supervisor | lock    | what is done                                                            |
        |----------|------------|---------|-------------------------------------------------------------------------|
        | finished | alive      | -       | its place goes to the next job; it is watched until it has exited        |
        | finished | gone       | -       | its place goes to the next job; it is watched no more                    |
        | other    | alive      | -       | nothing: it writes the next status                                       |
        | other    | gone       | held    | nothing: a supervisor of an earlier server is alive                      |
        | other    | gone       | removed | the job becomes `interrupted`: nobody can read its files any more        |
        | running  | gone       | free    | a successor is started, which ends what is left and writes the last status |
        | queued   | gone       | free    | the job becomes `cancelled` or `interrupted`: a successor would die too  |
        """
        is_alive = tracked.supervisor is not None and tracked.supervisor.poll() is None
        self._read_status(tracked)
        lock = None if is_alive or tracked.job.is_finished else _try_lock(tracked)
        try:
            if isinstance(lock, int):
                self._read_status(tracked)  # it may have finished after the first look
            match tracked.job.status.status, is_alive, lock:
                case "running", False, int(descriptor):
                    log.warning("job_orphaned", job_id=tracked.job.id)
                    self._start_supervisor(tracked, descriptor)
                case "queued", False, int():
                    state: JobState = "cancelled" if tracked.directory.is_cancel_requested else "interrupted"
                    self._finalize(tracked, state, "Its supervisor died before it began; supervisor.log may say why.")
                case "queued" | "running", False, "removed":
                    self._finalize(tracked, "interrupted", "Somebody has removed its directory.")
        finally:
            if isinstance(lock, int):
                os.close(lock)
        if tracked.job.is_finished:
            self._running.discard(tracked)
            self.start_queued()
            if not is_alive:
                self._stop_watching(tracked)

    def _stop_watching(self, tracked: TrackedJob) -> None:
        if tracked.watch is not None:
            self._watched.discard(tracked)
            watch, tracked.watch, tracked.supervisor = tracked.watch, None, None
            watch.cancel()

    def _start_supervisor(self, tracked: TrackedJob, lock: int) -> None:
        """Start a process that inherits the lock, and reads in the job's files what there is to do.

        The caller closes its descriptor of the lock, and must not unlock it: that would free it for the process too.
        """
        command = [sys.executable, "-P", "-m", SUPERVISOR, str(tracked.directory.path), str(lock)]
        paths = [_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            with tracked.directory.supervisor_log.open("ab") as output:
                tracked.supervisor = subprocess.Popen(  # noqa: S603 - our own module
                    command,
                    env={
                        **inherited_environment(os.environ),
                        **config.otel_variables(os.environ),  # not for its script
                        "PYTHONPATH": os.pathsep.join(paths),
                    },
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(lock,),
                    start_new_session=True,
                )
        except OSError as error:  # the next poll finds the lock free
            log.warning("supervisor_start_failed", job_id=tracked.job.id, error=error.strerror)

    # --- status --------------------------------------------------------------------------------------

    def _read_status(self, tracked: TrackedJob) -> None:
        try:
            status = tracked.directory.read_status()
        except (OSError, msgspec.DecodeError) as error:
            log.warning("job_status_unreadable", job_id=tracked.job.id, error=str(error))
            return
        if status != tracked.job.status:
            self._set_status(tracked, status)

    def _finalize(self, tracked: TrackedJob, state: JobState, reason: str) -> None:
        """Write the last status of a job that no supervisor can finish."""
        outcome = Outcome(returncode=None, command="", duration_seconds=0.0, error=reason)
        status = tracked.job.status.finish(datetime.now(UTC).isoformat(), state, outcome)
        try:
            tracked.directory.write_status(status)
        except OSError as error:
            log.warning("job_status_unwritable", job_id=tracked.job.id, error=error.strerror)
        self._set_status(tracked, status)

    def _set_status(self, tracked: TrackedJob, status: JobStatus) -> None:
        tracked.job = Job(tracked.job.spec, status)
        if tracked.log_follower is not None and tracked.job.is_finished:
            tracked.log_follower.refresh()
        self._on_status_change(tracked)


def _try_lock(tracked: TrackedJob) -> Lock:
    """Raises OSError."""
    if not tracked.directory.path.is_dir():
        return "removed"
    descriptor = tracked.directory.try_lock()
    return "held" if descriptor is None else descriptor
