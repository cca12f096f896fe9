"""What a kind of job is: how a request becomes a job, and how its supervisor runs it.

A kind is one object in `kinds/registry.py`, found by the name that stands in the job's spec as `action`. The server
calls `submit`; the supervisor, a process of its own, calls `create_run` and drives what that returns. The scheduler,
the supervisor, the job's directory and the process tree know no kind by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from infraforge_runner.infraforge.presets import HyperPodPreset, OverrideValue
from infraforge_runner.infraforge.rendering import RenderedStack
from infraforge_runner.infraforge.stack_records import StackStore
from infraforge_runner.jobs.directory import JobDirectory
from infraforge_runner.jobs.model import Job, JobRequest, JobSpec, Progress


@dataclass(frozen=True, slots=True)
class SubmissionContext:
    """What a kind may look at when a job is submitted. `presets_folder` is what scripts' paths are relative to."""

    presets: Mapping[str, HyperPodPreset]
    presets_folder: Path
    checkout: Path | None
    stacks: StackStore
    unfinished_jobs: Sequence[Job]


@dataclass(frozen=True, slots=True)
class Submission:
    """The parts of a job's spec that its kind decides. `script` is the preset's own; None: one of ours."""

    preset: HyperPodPreset
    overrides: dict[str, OverrideValue]
    rendered: RenderedStack
    script: bytes | None


@dataclass(frozen=True, slots=True)
class Preparation:
    """What to run, None: nothing; and what to write into the job's log before the command's output."""

    argv: Sequence[str] | None
    log_text: str = ""


@dataclass(frozen=True, slots=True)
class RunResult:
    """What is known when the command has ended. `details` are sentences about what failed or still goes on."""

    outputs: dict[str, str] = field(default_factory=dict)
    plan: dict[str, Any] | None = None
    details: str = ""


class JobRun(Protocol):
    """One run of one job: `prepare`, then the command, then `finish`."""

    @property
    def prepare_span(self) -> str:
        """The name of the span around `prepare` (docs/TRACES.md)."""

    @property
    def finish_span(self) -> str | None:
        """The name of the span around `finish`; None: it has none."""

    @property
    def command(self) -> str:
        """The command as the job's result shows it, not masked; empty until it is known."""

    @property
    def phase(self) -> str:
        """The phase that the job's status shows."""

    @property
    def progress(self) -> Progress | None:
        """The progress that the job's status shows."""

    async def prepare(self) -> Preparation:
        """Fill the work directory. Raises ForgelineError, OSError."""

    def read_output(self, data: bytes) -> bool:
        """Read a piece of the command's output; return whether phase or progress changed."""

    async def finish(self, exit_code: int | None) -> RunResult:
        """Conclude, once nothing is left of the command. `exit_code` is None where it was stopped."""


class JobKind(Protocol):
    """A kind of job."""

    @property
    def name(self) -> str:
        """The `action` of its jobs."""

    def submit(self, request: JobRequest, context: SubmissionContext) -> Submission:
        """Check a request. Raises UnknownPreset, InvalidRequest, StackLocked, Unavailable."""

    def create_run(self, directory: JobDirectory, spec: JobSpec, environment: Mapping[str, str]) -> JobRun:
        """Return the run, live or dry, of a job. `environment` is what the live run's command gets. Raises OSError."""
