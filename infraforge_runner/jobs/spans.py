"""The spans of a job: one from its request to its end, and one for each step of its supervisor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from infraforge_runner.jobs.model import Job, JobStatus

if TYPE_CHECKING:
    from pipeline.telemetry.otel import Span, Tracing


class JobSpans:
    """The spans that one supervisor makes; without `tracing`, none."""

    def __init__(self, tracing: Tracing | None, job: Job) -> None:
        self._tracing = tracing
        self._submitted_at = datetime.fromisoformat(job.spec.created_at).timestamp()
        self._phase: str | None = None
        self._step: Span | None = None
        if tracing is not None:
            self._job = tracing.start_span(
                f"job {job.spec.action}",
                attributes=_attributes(job),
                context=tracing.extract_context(job.spec.trace),
                started_at=self._submitted_at,
            )

    def start(self) -> None:
        """Record how long the job was queued."""
        if self._tracing is not None:
            with self._tracing.use_span(self._job):
                self._tracing.start_span("queue", started_at=self._submitted_at).end()

    @contextmanager
    def step(self, name: str | None) -> Iterator[None]:
        """A span around the block; without a name, none."""
        if self._tracing is None or name is None:
            yield
            return
        with self._tracing.use_span(self._job):
            span = self._step = self._tracing.start_span(name)
        try:
            yield
        except BaseException as error:
            self._tracing.mark_failed(span, error)
            raise
        finally:
            self._step = None
            span.end()

    def set_phase(self, phase: str) -> None:
        """Add an event to the step's span where the phase is a new one."""
        if self._step is not None and phase != self._phase:
            self._phase = phase
            self._step.add_event("phase", {"forgeline.job.phase": phase})

    def set_exit_code(self, code: int) -> None:
        """Set the exit status of the step's script."""
        if self._tracing is not None and self._step is not None:
            self._step.set_attribute("process.exit.code", code)
            if code != 0:
                self._tracing.mark_failed(self._step, str(code))

    def finish(self, status: JobStatus) -> None:
        if self._tracing is None:
            return
        self._job.set_attribute("forgeline.job.status", status.status)
        if status.status != "succeeded":
            self._tracing.mark_failed(self._job, status.status)
        self._job.end()


def _attributes(job: Job) -> dict[str, str | bool]:
    spec = job.spec
    return {
        "forgeline.job.id": spec.job_id,
        "forgeline.job.action": spec.action,
        "forgeline.job.preset": spec.preset_name,
        "forgeline.job.dry_run": spec.dry_run,
        "forgeline.job.stack": spec.stack_name,
        "cloud.region": spec.region,
    }
