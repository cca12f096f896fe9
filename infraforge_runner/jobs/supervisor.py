"""The process that owns one job: `python -m infraforge_runner.jobs.supervisor DIRECTORY LOCK`.

It is detached from the server, so that the server may restart, or be killed, in the middle of a forty-minute deploy.
Its descriptor LOCK holds the job's lock, which therefore means: the supervisor lives. A supervisor that finds its job
`running` is the successor of one that died: it kills what that one left behind, and writes the job's last status.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from infraforge_runner.jobs.directory import JobDirectory
from infraforge_runner.jobs.model import JobState, JobStatus, Outcome
from infraforge_runner.jobs.process_tree import become_subreaper, kill_marked
from infraforge_runner.jobs.script import Script, inherited_environment, secret_values
from infraforge_runner.jobs.spans import JobSpans
from infraforge_runner.kinds.kind import JobRun, RunResult
from infraforge_runner.kinds.registry import KINDS
from pipeline.errors import ForgelineError
from pipeline.masking import Masker
from pipeline.telemetry import config

if TYPE_CHECKING:
    from pipeline.telemetry.otel import Tracing

log = structlog.get_logger(__name__)

CANCEL_POLL_SECONDS = 0.2
PROGRESS_SECONDS = 0.2  # between two writes of a job's progress


@dataclass(frozen=True, slots=True)
class StopRequest:
    """Why a job ends before its command does, and in which state."""

    state: JobState
    reason: str


class Supervisor:
    """One job, from `running` to its end."""

    def __init__(self, directory: JobDirectory, tracing: Tracing | None = None) -> None:
        job = directory.read()
        self._spans = JobSpans(tracing, job)
        self._directory = directory
        self._spec = job.spec
        self._status = job.status
        self._run: JobRun | None = None
        self._stop_request: asyncio.Future[StopRequest] = asyncio.get_running_loop().create_future()
        self._log_failure: StopRequest | None = None
        self._progress_written_at = 0.0
        self._progress_timer: asyncio.TimerHandle | None = None
        self._environment = {
            **inherited_environment(os.environ),
            **self._spec.variables,
            "FORGELINE_JOB": self._spec.job_id,
        }
        self._secrets = secret_values(self._environment)
        self._log = os.open(directory.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    async def run(self) -> None:
        """Run the job if nobody has started it; else clean up after the supervisor that did."""
        if self._status.status == "running":
            self._finalize_orphan()
        elif self._directory.is_cancel_requested:
            self._finish("cancelled", None, "It was cancelled before it began.")
        else:
            await self._start()

    async def _start(self) -> None:
        self._status = self._status.start(_now())
        self._spans.start()
        loop, timeout = asyncio.get_running_loop(), self._spec.timeout
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, StopRequest("interrupted", "Its supervisor was told to end."))
        loop.call_later(
            timeout, self._stop, StopRequest("failed", f"It took longer than its timeout of {timeout:g} s.")
        )
        watching = asyncio.create_task(self._watch_for_cancel(), name="watch for cancel")
        try:
            self._directory.write_status(self._status)
            await self._execute()
        except (ForgelineError, OSError) as error:
            self._finish("failed", None, error.message if isinstance(error, ForgelineError) else f"{error}.")
        except Exception as error:
            log.exception("supervisor_failed", job_id=self._spec.job_id)
            self._finish("failed", None, f"The supervisor failed: {error!r}")
        finally:
            watching.cancel()

    async def _execute(self) -> None:
        run = self._run = KINDS[self._spec.action].create_run(self._directory, self._spec, self._environment)
        with self._spans.step(run.prepare_span):
            preparation = await run.prepare()
        if preparation.log_text:
            os.write(self._log, self._mask(preparation.log_text).encode())
        stop, code = await self._run_command(run, preparation.argv) if preparation.argv else (None, 0)
        with self._spans.step(run.finish_span):
            result = await run.finish(None if stop else code)
        self._status = self._status.update(_now(), run.phase, run.progress)
        if stop is not None:
            self._finish(stop.state, code, f"{stop.reason} {result.details}".strip(), result)
        elif code == 0:
            self._finish("succeeded", code, None, result)
        else:
            self._finish("failed", code, f"{_describe_exit(code)} {result.details}".strip(), result)

    async def _run_command(self, run: JobRun, argv: Sequence[str]) -> tuple[StopRequest | None, int]:
        """Run until nothing is left of it: why it was stopped, if it was, and its exit status. Raises OSError."""
        with self._spans.step("script"):
            mark = os.open(self._directory.mark, os.O_RDONLY | os.O_CLOEXEC)
            script = Script(self._log, self._secrets, self._on_log_error)
            try:
                script.start(argv, self._directory.work, self._environment, mark)
            finally:
                os.close(mark)
            script.on_output = lambda data: self._read_progress(run, data)
            await asyncio.wait((script.exited, self._stop_request), return_when=asyncio.FIRST_COMPLETED)
            stop = None if script.exited.done() else self._stop_request.result()
            if stop is not None:
                script.write_line(f"[forgeline] {stop.reason} What it has started is ended now.")
            with suppress(TimeoutError):  # another user's processes: the error of the job says enough
                await script.terminate()
            code = script.exited.result()
            self._spans.set_exit_code(code)
        return stop or self._log_failure, code

    # --- what ends it early ------------------------------------------------------------------------

    async def _watch_for_cancel(self) -> None:
        while not self._directory.is_cancel_requested:  # noqa: ASYNC110 - another process makes the file
            await asyncio.sleep(CANCEL_POLL_SECONDS)
        self._stop(StopRequest("cancelled", "It was cancelled."))

    def _on_log_error(self, error: OSError) -> None:
        """End the job: a command must not run on with its output lost."""
        self._log_failure = StopRequest("failed", f"Its log can't be written: {error.strerror}.")
        self._stop(self._log_failure)

    def _stop(self, request: StopRequest) -> None:
        """Stop the command; the first request counts."""
        if not self._stop_request.done():
            self._stop_request.set_result(request)

    # --- the status --------------------------------------------------------------------------------

    def _finalize_orphan(self) -> None:
        """Kill what a supervisor left that died in the middle, and write the job's last status."""
        with self._spans.step("settle"):
            killed = kill_marked(self._spec.job_id, self._directory.mark)
        reason = f"Its supervisor died; {killed} of its processes were left, and have been ended."
        if not self._spec.dry_run:
            reason += " CloudFormation may still be at work on its stack."
        self._finish("cancelled" if self._directory.is_cancel_requested else "interrupted", None, reason)

    def _read_progress(self, run: JobRun, data: bytes) -> None:
        if not run.read_output(data):
            return
        self._spans.set_phase(run.phase)
        if self._progress_timer is None:
            # A change before the timer fires is written with it: the next one may come minutes later.
            delay = max(0.0, self._progress_written_at + PROGRESS_SECONDS - time.monotonic())
            self._progress_timer = asyncio.get_running_loop().call_later(delay, self._write_progress, run)

    def _write_progress(self, run: JobRun) -> None:
        self._progress_timer, self._progress_written_at = None, time.monotonic()
        with suppress(OSError):  # a full disk is noticed by the log
            self._write_status(self._status.update(_now(), run.phase, run.progress))

    def _finish(
        self, state: JobState, returncode: int | None, error: str | None, result: RunResult | None = None
    ) -> None:
        """Write the last status."""
        if self._progress_timer is not None:
            self._progress_timer.cancel()
        started_at, now = self._status.started_at, datetime.now(UTC)
        duration = 0.0 if started_at is None else (now - datetime.fromisoformat(started_at)).total_seconds()
        result = result or RunResult()
        outcome = Outcome(
            returncode=returncode,
            command="" if self._run is None else self._mask(self._run.command),
            duration_seconds=round(max(duration, 0.0), 3),
            outputs=result.outputs,
            plan=result.plan,
            error=error if error is None else self._mask(error),
        )
        self._write_status(self._status.finish(now.isoformat(), state, outcome))
        self._spans.finish(self._status)

    def _write_status(self, status: JobStatus) -> None:
        self._directory.write_status(status)
        self._status = status

    def _mask(self, text: str) -> str:
        masker = Masker(self._secrets)
        return (masker.feed(text.encode()) + masker.finish()).decode(errors="replace")


def _describe_exit(code: int) -> str:
    return f"The script was ended by signal {-code}." if code < 0 else f"The script ended with exit status {code}."


def _now() -> str:
    return datetime.now(UTC).isoformat()


async def supervise(directory: JobDirectory, tracing: Tracing | None = None) -> None:
    await Supervisor(directory, tracing).run()


def main() -> None:
    lock = int(sys.argv[2])
    os.set_inheritable(lock, False)  # else the script would hold the lock after the end of this process
    become_subreaper()
    directory = JobDirectory(Path(sys.argv[1]))
    tracing = config.configure_tracing(directory.path.name)  # the job's id
    asyncio.run(supervise(directory, tracing))
    if tracing is not None:
        tracing.close()  # the job has ended for everybody else


if __name__ == "__main__":
    main()
