"""What a request to deploy and one to destroy share: both are for the stack of a HyperPod preset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from infraforge_runner.infraforge.presets import HyperPodPreset, OverrideValue
from infraforge_runner.infraforge.rendering import RenderedStack, render
from infraforge_runner.infraforge.workspace import require_checkout
from infraforge_runner.jobs.directory import JobDirectory
from infraforge_runner.jobs.model import JobRequest, JobSpec
from infraforge_runner.kinds.kind import JobRun, Submission, SubmissionContext
from pipeline.errors import StackLocked, Unavailable, UnknownPreset

MAX_SCRIPT_BYTES = 1_000_000


class StackKind(ABC):
    """A kind of job at one stack; kinds differ in the abstract methods."""

    name: ClassVar[str]

    def submit(self, request: JobRequest, context: SubmissionContext) -> Submission:
        """Check a request. Raises UnknownPreset, InvalidRequest, StackLocked, Unavailable."""
        preset = context.presets.get(request.preset)
        if preset is None:
            raise UnknownPreset(f"preset: there is no {request.preset[:80]!r}; GET /api/hyperpod/presets lists them.")
        overrides = preset.validate_overrides(request.overrides)
        rendered = self.resolve(request, render(preset, request.preset, overrides), overrides, context)
        path = self.own_script(preset)
        script = None if path is None else _read_script(context.presets_folder, path)
        if not request.dry_run:
            if script is None:
                require_checkout(context.checkout)
            _check_stack_is_free(rendered, context)
        return Submission(preset, overrides, rendered, script)

    @abstractmethod
    def create_run(self, directory: JobDirectory, spec: JobSpec, environment: Mapping[str, str]) -> JobRun:
        """Return the run, live or dry, of a job. Raises OSError."""

    @abstractmethod
    def own_script(self, preset: HyperPodPreset) -> str | None:
        """The path of the preset's own script, relative to the folder of presets. None: ours is used."""

    @abstractmethod
    def resolve(
        self,
        request: JobRequest,
        rendered: RenderedStack,
        overrides: dict[str, OverrideValue],
        context: SubmissionContext,
    ) -> RenderedStack:
        """What the job works on, where `rendered` is what the preset says now. Raises InvalidRequest, StackLocked."""


def _check_stack_is_free(rendered: RenderedStack, context: SubmissionContext) -> None:
    """Raises StackLocked."""
    for job in context.unfinished_jobs:
        if job.held_stack == (rendered.region, rendered.stack_name):
            raise StackLocked(
                f"Job {job.id} is at work on the stack {rendered.stack_name} in {rendered.region};"
                " wait for its end, or cancel it."
            )


def _read_script(folder: Path, name: str) -> bytes:
    """Read a preset's own script as it is now. Raises Unavailable."""
    root = folder.resolve()
    try:
        path = (root / name).resolve()
        if not path.is_relative_to(root) or not path.is_file():  # never opened: a pipe would block the server
            raise Unavailable(f"The preset's script {name} is no file in the folder of presets.")
        script = path.read_bytes() if path.stat().st_size <= MAX_SCRIPT_BYTES else b""
    except OSError as error:
        raise Unavailable(f"The preset's script {name} can't be read: {error.strerror}.") from error
    except RuntimeError as error:  # what resolve() raises
        raise Unavailable(f"The preset's script {name} is a link that leads to itself.") from error
    if not script:
        raise Unavailable(f"The preset's script {name} is empty, or larger than {MAX_SCRIPT_BYTES:,} bytes.")
    return script
