"""The process that owns one job: `python -m infraforge_runner.supervisor DIRECTORY LOCK`.

It is detached from the server, so that the server may restart, or be killed, in the middle of a forty-minute deploy.
Its descriptor LOCK holds the job's lock, which therefore means: the supervisor lives. One that finds its job running
already is the successor of one that died: it ends what that one left behind, and settles the job.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from infraforge_runner.deployment import Deployment
from infraforge_runner.directory import JobDirectory
from infraforge_runner.job import Outcome, State, Status
from infraforge_runner.mask import Masker
from infraforge_runner.processes import become_subreaper, end_marked
from infraforge_runner.rehearsal import Rehearsal, as_told
from infraforge_runner.script import Script, inherited, secrets_in
from infraforge_runner.trace import JobTrace
from pipeline import tracing
from pipeline.errors import ForgelineError

if TYPE_CHECKING:
    from pipeline.otel import Tracing

log = structlog.get_logger(__name__)

CANCEL_LOOK = 0.2  # seconds between two looks whether somebody has asked to cancel
STEP = 0.2  # seconds between two writes of a job's progress


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a job ends before its script does, and as what."""

    status: State
    why: str


class Supervisor:
    """One job, from `running` to its end."""

    def __init__(self, directory: JobDirectory, traces: Tracing | None = None) -> None:
        job = directory.read()
        self._trace = JobTrace(traces, job)
        self._directory = directory
        self._spec = job.spec
        self._status = job.status
        self._command = ""
        self._stopped: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()
        self._trouble: Stop | None = None
        self._stepped = 0.0
        self._step: asyncio.TimerHandle | None = None
        self._environment = {**inherited(os.environ), **self._spec.variables, "FORGELINE_JOB": self._spec.job_id}
        self._secrets = secrets_in(self._environment)
        self._log = os.open(directory.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    async def run(self) -> None:
        """The job, if nobody has begun it; else what has to be cleared away after the supervisor that did."""
        if self._status.status == "running":
            self._settle()
        elif self._directory.is_cancelled:
            self._finish("cancelled", None, "It was cancelled before it began.")
        else:
            await self._begin()

    async def _begin(self) -> None:
        self._status = self._status.begin(_now())
        self._trace.begin()
        loop, timeout = asyncio.get_running_loop(), self._spec.preset.timeout
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, Stop("interrupted", "Its supervisor was told to end."))
        loop.call_later(timeout, self._stop, Stop("failed", f"It took longer than its timeout of {timeout:g} s."))
        watching = asyncio.create_task(self._watch_for_cancel(), name="watch for cancel")
        try:
            self._directory.write_status(self._status)
            await (self._rehearse() if self._spec.dry_run else self._execute())
        except (ForgelineError, OSError) as error:
            self._finish("failed", None, error.message if isinstance(error, ForgelineError) else f"{error}.")
        except Exception as error:
            log.exception("the supervisor failed", job_id=self._spec.job_id)
            self._finish("failed", None, f"The supervisor failed: {error!r}")
        finally:
            watching.cancel()

    async def _execute(self) -> None:
        """A live job."""
        deployment = Deployment(self._directory, self._spec)
        with self._trace.step("render"):
            argv = await deployment.prepare()
        self._command = self._mask(shlex.join(argv))
        stop, code = await self._run_script(argv, deployment)
        with self._trace.step("read stack"):
            found = await deployment.conclude(None if stop else code)
        self._status = self._status.move(_now(), deployment.cdk.phase, deployment.cdk.progress)
        if stop is not None:
            self._finish(stop.status, code, f"{stop.why} {found.words}".strip())
        elif code == 0:
            self._finish("succeeded", code, None, outputs=found.outputs)
        else:
            self._finish("failed", code, f"{_explain(code)} {found.words}".strip())

    async def _rehearse(self) -> None:
        """A dry run."""
        rehearsal = Rehearsal(self._directory, self._spec, self._environment)
        self._command = self._mask(rehearsal.command)
        with self._trace.step("plan"):
            plan, argv = await rehearsal.plan()
        os.write(self._log, self._mask("".join(f"{line}\n" for line in rehearsal.spell_out(plan))).encode())
        stop, code = await self._run_script(argv, None) if argv else (None, 0)
        if stop is not None:
            self._finish(stop.status, code, stop.why, plan=as_told(plan))
        elif code == 0:
            self._finish("succeeded", code, None, plan=as_told(plan))
        else:
            self._finish("failed", code, _explain(code), plan=as_told(plan))

    async def _run_script(self, argv: Sequence[str], deployment: Deployment | None) -> tuple[Stop | None, int]:
        """Runs it until nothing is left of it: why it was stopped, if it was, and its exit status. Raises OSError."""
        with self._trace.step("script"):
            stop, code = await self._run_to_its_end(argv, deployment)
            self._trace.exited(code)
        return stop, code

    async def _run_to_its_end(self, argv: Sequence[str], deployment: Deployment | None) -> tuple[Stop | None, int]:
        mark = os.open(self._directory.mark, os.O_RDONLY | os.O_CLOEXEC)
        script = Script(self._log, self._secrets, self._in_trouble)
        try:
            script.start(argv, self._directory.work, self._environment, mark)
        finally:
            os.close(mark)
        if deployment is not None:
            script.on_output = lambda data: self._read_progress(deployment, data)
        await asyncio.wait((script.exited, self._stopped), return_when=asyncio.FIRST_COMPLETED)
        stop = None if script.exited.done() else self._stopped.result()
        if stop is not None:
            script.say(f"[forgeline] {stop.why} What it has started is ended now.")
        with suppress(TimeoutError):  # another user's processes: the error of the job says enough
            await script.end()
        return stop or self._trouble, script.exited.result()

    # --- what ends it early ------------------------------------------------------------------------

    async def _watch_for_cancel(self) -> None:
        while not self._directory.is_cancelled:  # noqa: ASYNC110 - another process makes the file
            await asyncio.sleep(CANCEL_LOOK)
        self._stop(Stop("cancelled", "It was cancelled."))

    def _in_trouble(self, error: OSError) -> None:
        """The output can't be written: what runs on unseen is not what anybody asked for."""
        self._trouble = Stop("failed", f"Its log can't be written: {error.strerror}.")
        self._stop(self._trouble)

    def _stop(self, reason: Stop) -> None:
        if not self._stopped.done():
            self._stopped.set_result(reason)

    # --- the status --------------------------------------------------------------------------------

    def _settle(self) -> None:
        """What a supervisor left that died in the middle."""
        with self._trace.step("settle"):
            ended = end_marked(self._spec.job_id, self._directory.mark)
        why = f"Its supervisor died; {ended} of its processes were left, and have been ended."
        if not self._spec.dry_run:
            why += " CloudFormation may still be at work on its stack."
        self._finish("cancelled" if self._directory.is_cancelled else "interrupted", None, why)

    def _read_progress(self, deployment: Deployment, data: bytes) -> None:
        if not deployment.cdk.read(data):
            return
        self._trace.reach(deployment.cdk.phase)
        if self._step is None:
            # What comes sooner is written then: it may be the last word for the minutes that a cluster takes.
            delay = max(0.0, self._stepped + STEP - time.monotonic())
            self._step = asyncio.get_running_loop().call_later(delay, self._write_progress, deployment)

    def _write_progress(self, deployment: Deployment) -> None:
        self._step, self._stepped = None, time.monotonic()
        with suppress(OSError):  # a full disk is found out by the log
            self._write(self._status.move(_now(), deployment.cdk.phase, deployment.cdk.progress))

    def _finish(self, status: State, returncode: int | None, error: str | None, **more: Any) -> None:
        """`more` are further fields of the outcome."""
        if self._step is not None:
            self._step.cancel()
        began, now = self._status.started_at, datetime.now(UTC)
        duration = 0.0 if began is None else (now - datetime.fromisoformat(began)).total_seconds()
        outcome = Outcome(
            returncode=returncode,
            command=self._command,
            duration_seconds=round(max(duration, 0.0), 3),
            error=error if error is None else self._mask(error),
            **more,
        )
        self._write(self._status.finish(now.isoformat(), status, outcome))
        self._trace.finish(self._status)

    def _write(self, status: Status) -> None:
        self._directory.write_status(status)
        self._status = status

    def _mask(self, text: str) -> str:
        masker = Masker(self._secrets)
        return (masker.feed(text.encode()) + masker.finish()).decode(errors="replace")


def _explain(code: int) -> str:
    return f"The script was ended by signal {-code}." if code < 0 else f"The script ended with exit status {code}."


def _now() -> str:
    return datetime.now(UTC).isoformat()


async def supervise(directory: JobDirectory, traces: Tracing | None = None) -> None:
    await Supervisor(directory, traces).run()


def main() -> None:
    lock = int(sys.argv[2])
    os.set_inheritable(lock, False)  # or the script would hold the lock when this process is gone
    become_subreaper()
    directory = JobDirectory(Path(sys.argv[1]))
    traces = tracing.configure(directory.path.name)  # which is the job's id
    asyncio.run(supervise(directory, traces))
    if traces is not None:
        traces.close()  # the job has ended for everybody else


if __name__ == "__main__":
    main()
