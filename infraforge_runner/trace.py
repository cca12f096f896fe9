"""A job's spans: the job itself, from its request to its end, and each step that its supervisor takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from infraforge_runner.job import Job, Status

if TYPE_CHECKING:
    from pipeline.otel import Span, Tracing


class JobTrace:
    """One supervisor's part of it. Without `tracing` there is none, and nothing happens."""

    def __init__(self, tracing: Tracing | None, job: Job) -> None:
        self._tracing = tracing
        self._asked_at = datetime.fromisoformat(job.spec.created_at).timestamp()
        self._phase: str | None = None
        self._step: Span | None = None
        if tracing is not None:
            self._job = tracing.start(
                f"job {job.spec.action}",
                attributes=_attributes(job),
                context=tracing.incoming(job.spec.trace),
                at=self._asked_at,
            )

    def begin(self) -> None:
        """The job has a place: until now it waited for one."""
        if self._tracing is not None:
            with self._tracing.current(self._job):
                self._tracing.start("queue", at=self._asked_at).end()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A span for what is done within."""
        if self._tracing is None:
            yield
            return
        with self._tracing.current(self._job):
            span = self._step = self._tracing.start(name)
        try:
            yield
        except BaseException as error:
            self._tracing.fail(span, error)
            raise
        finally:
            self._step = None
            span.end()

    def reach(self, phase: str) -> None:
        """The step's work has come to this phase, by its own words."""
        if self._step is not None and phase != self._phase:
            self._phase = phase
            self._step.add_event("phase", {"forgeline.job.phase": phase})

    def exited(self, code: int) -> None:
        """The step's script has ended so."""
        if self._tracing is not None and self._step is not None:
            self._step.set_attribute("process.exit.code", code)
            if code != 0:
                self._tracing.fail(self._step, str(code))

    def finish(self, status: Status) -> None:
        if self._tracing is None:
            return
        self._job.set_attribute("forgeline.job.status", status.status)
        if status.status != "succeeded":
            self._tracing.fail(self._job, status.status)
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
