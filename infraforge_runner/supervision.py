"""The server's side of jobs that run: starts their supervisors, sees what those write, and settles what they left."""

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

import msgspec
import structlog

from infraforge_runner.directory import JobDirectory
from infraforge_runner.job import Job, Outcome, State, Status
from infraforge_runner.script import inherited
from infraforge_runner.tail import Tail
from infraforge_runner.watch import Watch, Watcher
from pipeline import tracing

log = structlog.get_logger(__name__)

LOOK = 1.0  # seconds after which a job is looked at, though nothing told of a change
SETTLE = 0.02  # seconds between a change and the look at it
_ROOT = str(Path(__file__).resolve().parent.parent)


@dataclass(eq=False, slots=True)
class Kept:
    """A job that is kept: where, how it was when last looked at, and what belongs to it in this server."""

    directory: JobDirectory
    job: Job
    watch: Watch | None = None
    supervisor: subprocess.Popen[bytes] | None = None
    tail: Tail | None = None

    @property
    def is_in_use(self) -> bool:
        """Whether its supervisor has not gone yet, or somebody still reads its log."""
        return self.watch is not None or (self.tail is not None and self.tail.followers > 0)


class Supervision:
    """At most `at_once` jobs run; the others wait in the order in which they came.

    `on_step` hears of each job whose status is another one, after that is on disk.
    """

    def __init__(self, watcher: Watcher, at_once: int, on_step: Callable[[Kept], None]) -> None:
        self._watcher = watcher
        self._at_once = at_once
        self._on_step = on_step
        self._queue: deque[Kept] = deque()
        self._under_way: set[Kept] = set()
        self._watched: set[Kept] = set()  # also the finished ones whose supervisor has not gone yet

    @property
    def unfinished(self) -> Iterator[Job]:
        return (kept.job for kept in (*self._queue, *self._under_way))

    def pick_up(self, kept: Kept) -> None:
        """A job of an earlier server: it waits again, or is looked at again, which settles it if it died."""
        if kept.job.status.status == "queued" and (lock := kept.directory.take_lock()) is not None:
            os.close(lock)
            self._queue.append(kept)
            if kept.directory.is_cancelled:  # the server that was asked died before it had done so
                self.withdraw(kept)
        else:
            self._follow(kept)

    def enqueue(self, kept: Kept) -> None:
        self._queue.append(kept)

    def begin_queued(self) -> None:
        while self._queue and len(self._under_way) < self._at_once:
            kept = self._queue.popleft()
            if (lock := kept.directory.take_lock()) is not None:
                self._start_supervisor(kept, lock)
            self._follow(kept)

    def withdraw(self, kept: Kept) -> None:
        """Cancels a job that has not begun; of one that has, its supervisor takes care."""
        if kept in self._queue:
            self._queue.remove(kept)
            self._settle(kept, "cancelled", "It was cancelled before it began.")

    async def close(self) -> None:
        """Stops looking; the jobs go on."""
        for kept in list(self._watched):  # others go while one is waited for
            if kept.watch is not None:
                await kept.watch.close()

    # --- supervisors -------------------------------------------------------------------------------

    def _start_supervisor(self, kept: Kept, lock: int) -> None:
        """Hands the lock on to a new supervisor, which reads in the job's files what there is to do."""
        command = [sys.executable, "-P", "-m", "infraforge_runner.supervisor", str(kept.directory.path), str(lock)]
        paths = [_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            with kept.directory.supervisor_log.open("ab") as output:
                kept.supervisor = subprocess.Popen(  # noqa: S603 - our own module
                    command,
                    env={
                        **inherited(os.environ),
                        **tracing.settings(os.environ),  # for itself alone: a script gets only what is `inherited`
                        "PYTHONPATH": os.pathsep.join(paths),
                    },
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(lock,),
                    start_new_session=True,
                )
        except OSError as error:  # the next look finds nobody at work
            log.warning("a supervisor can't be started", job_id=kept.job.id, error=error.strerror)
        finally:
            os.close(lock)  # closed, not unlocked: that would free it for the supervisor too

    def _follow(self, kept: Kept) -> None:
        self._under_way.add(kept)
        self._watched.add(kept)
        look = partial(self._look, kept)
        kept.watch = Watch(self._watcher, [kept.directory.path], look, settle=SETTLE, anyway=LOOK, only_writes=True)
        kept.watch.start()

    async def _look(self, kept: Kept) -> None:
        """Takes in what the supervisor wrote. Where it is gone, and its job not finished, somebody has to settle it."""
        has_gone = kept.supervisor is None or kept.supervisor.poll() is not None
        self._read(kept)
        if not kept.job.is_finished and has_gone:
            self._succeed(kept)
        if kept.job.is_finished:
            self._under_way.discard(kept)
            self.begin_queued()
            if has_gone and kept.watch is not None:
                self._watched.discard(kept)
                watch, kept.watch, kept.supervisor = kept.watch, None, None
                watch.cancel()

    def _succeed(self, kept: Kept) -> None:
        """Settles a job whose supervisor is gone, which its lock tells."""
        if not kept.directory.path.is_dir():
            self._settle(kept, "interrupted", "Somebody has removed its directory.")
            return
        lock = kept.directory.take_lock()
        if lock is None:
            return
        self._read(kept)  # it may have finished before it left
        match kept.job.status.status:
            case "running":
                log.warning("a supervisor is gone; its job is settled", job_id=kept.job.id)
                self._start_supervisor(kept, lock)
            case "queued":  # it died before it had begun: another one would too
                state: State = "cancelled" if kept.directory.is_cancelled else "interrupted"
                self._settle(kept, state, "Its supervisor died before it began; supervisor.log may say why.")
                os.close(lock)
            case _:
                os.close(lock)

    # --- status ------------------------------------------------------------------------------------

    def _read(self, kept: Kept) -> None:
        try:
            status = kept.directory.read_status()
        except (OSError, msgspec.DecodeError) as error:
            log.warning("a job's status can't be read", job_id=kept.job.id, error=str(error))
            return
        if status != kept.job.status:
            self._step(kept, status)

    def _settle(self, kept: Kept, state: State, why: str) -> None:
        """Ends a job that no supervisor can end."""
        outcome = Outcome(returncode=None, command="", duration_seconds=0.0, error=why)
        status = kept.job.status.finish(datetime.now(UTC).isoformat(), state, outcome)
        try:
            kept.directory.write_status(status)
        except OSError as error:
            log.warning("a job's status can't be written", job_id=kept.job.id, error=error.strerror)
        self._step(kept, status)

    def _step(self, kept: Kept, status: Status) -> None:
        kept.job = Job(kept.job.spec, status)
        if kept.tail is not None and kept.job.is_finished:
            kept.tail.look()
        self._on_step(kept)
