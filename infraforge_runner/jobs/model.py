"""A job: its spec, its status, and which state may follow which. Pure: no file, no clock, no process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, TypedDict, get_args

import msgspec
from msgspec import Meta, Struct

from infraforge_runner.infraforge.presets import Action, HyperPodPreset, OverrideValue
from pipeline.presets.schema import schema_name

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled", "interrupted"]

FINISHED_STATES: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled", "interrupted"})

_TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    "queued": frozenset({"running", "cancelled", "interrupted"}),
    "running": FINISHED_STATES,
}


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A client's request for a job. `action` is the name of its kind.

    `idempotency` is the caller, their key, and a hash that tells this body from another.
    """

    action: str
    preset: str
    dry_run: bool
    overrides: Mapping[str, Any]
    confirm: str | None = None
    idempotency: tuple[str, str, str] | None = None


class JobSpec(Struct, frozen=True, kw_only=True):
    """What a job does: written once, before any client sees the job.

    `action` is the name of the job's kind (kinds/registry.py). `preset` is a copy, so that an edit of its file changes
    the next job and not this one. `own_script`: whether the script is the preset's own, a copy of which is in the
    job's directory. `config` is InfraForge's, overrides included; `names` are those that it creates in the account;
    `variables` are set in the script's environment. `idempotency` is that of the request. `trace` is the context of
    the request as W3C's headers, where requests are traced.
    """

    job_id: str
    action: str
    preset_name: str
    preset: HyperPodPreset
    dry_run: bool
    region: str
    stack_name: str
    overrides: dict[str, OverrideValue]
    variables: dict[str, str]
    names: tuple[str, ...]
    config: dict[str, Any]
    created_at: str
    own_script: bool
    checkout: str | None = None
    idempotency: tuple[str, str, str] | None = None
    trace: dict[str, str] = {}

    @property
    def timeout(self) -> float:
        """Seconds after which the job is stopped."""
        return self.preset.timeout


class Progress(Struct, frozen=True):
    """How many resources are done, of how many; `total` is null while it is unknown."""

    done: int
    total: int | None = None


class Outcome(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The result of a job. `command` is masked; `error` is a sentence; only a dry run has a `plan`."""

    returncode: int | None
    command: str
    duration_seconds: float
    outputs: dict[str, str] = {}
    plan: dict[str, Any] | None = None
    error: str | None = None

    def describe(self) -> JobResult:
        """What clients get; `plan` and `error` are left out where there is none."""
        description: JobResult = {
            "returncode": self.returncode,
            "command": self.command,
            "duration_seconds": self.duration_seconds,
            "outputs": self.outputs,
        }
        if self.plan is not None:
            description["plan"] = self.plan
        if self.error is not None:
            description["error"] = self.error
        return description


class JobResult(TypedDict):
    """`outputs` are the stack's; a dry run has a `plan`."""

    returncode: int | None
    command: str
    duration_seconds: float
    outputs: dict[str, str]
    plan: NotRequired[dict[str, Any]]
    error: NotRequired[str]


@schema_name("Job")
class JobDescription(TypedDict):
    job_id: str
    action: Annotated[str, Meta(extra_json_schema={"enum": list(get_args(Action))})]
    preset: str
    status: JobState
    dry_run: bool
    region: str | None
    stack_name: str | None
    overrides: dict[str, OverrideValue]
    created_at: str
    started_at: str | None
    finished_at: str | None
    updated_at: str
    phase: str | None
    progress: Progress | None
    result: JobResult | None


class JobStatus(Struct, frozen=True, kw_only=True):
    """The state of a job. Times are ISO 8601 with an offset."""

    status: JobState = "queued"
    started_at: str | None = None
    finished_at: str | None = None
    updated_at: str
    phase: str | None = None
    progress: Progress | None = None
    result: Outcome | None = None

    @property
    def is_finished(self) -> bool:
        return self.status in FINISHED_STATES

    def start(self, now: str) -> JobStatus:
        self._check_transition("running")
        return msgspec.structs.replace(self, status="running", started_at=now, updated_at=now, phase="starting")

    def update(self, now: str, phase: str | None, progress: Progress | None) -> JobStatus:
        """The same state with a new phase and progress."""
        return msgspec.structs.replace(self, updated_at=now, phase=phase, progress=progress)

    def finish(self, now: str, status: JobState, result: Outcome | None) -> JobStatus:
        self._check_transition(status)
        phase = {"succeeded": "done", "failed": "failed"}.get(status, self.phase)
        return msgspec.structs.replace(self, status=status, finished_at=now, updated_at=now, phase=phase, result=result)

    def _check_transition(self, next_state: JobState) -> None:
        if next_state not in _TRANSITIONS.get(self.status, frozenset()):
            raise ValueError(f"a job that is {self.status} can't become {next_state}")


class Job(Struct, frozen=True):
    """A job's spec and its status."""

    spec: JobSpec
    status: JobStatus

    @property
    def id(self) -> str:
        return self.spec.job_id

    @property
    def is_finished(self) -> bool:
        return self.status.is_finished

    @property
    def held_stack(self) -> tuple[str, str] | None:
        """The region and stack that no other job may change meanwhile."""
        spec = self.spec
        return None if spec.dry_run or self.is_finished else (spec.region, spec.stack_name)

    def summarize(self) -> JobDescription:
        """A job in a list: without its plan, which holds the whole configuration."""
        description = self.describe()
        if description["result"] is not None:
            description["result"].pop("plan", None)
        return description

    def describe(self) -> JobDescription:
        """What clients get. The API's description is made from its type, as from those of `pipeline/envelope.py`."""
        spec, status = self.spec, self.status
        return {
            "job_id": spec.job_id,
            "action": spec.action,
            "preset": spec.preset_name,
            "status": status.status,
            "dry_run": spec.dry_run,
            "region": spec.region,
            "stack_name": spec.stack_name,
            "overrides": spec.overrides,
            "created_at": spec.created_at,
            "started_at": status.started_at,
            "finished_at": status.finished_at,
            "updated_at": status.updated_at,
            "phase": status.phase,
            "progress": status.progress,
            "result": None if status.result is None else status.result.describe(),
        }
