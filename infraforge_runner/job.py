"""A job: what was asked, how it stands, and which step may follow which. Pure: no file, no clock, no process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from infraforge_runner.presets import Action, HyperPodPreset, Value

State = Literal["queued", "running", "succeeded", "failed", "cancelled", "interrupted"]

FINISHED: frozenset[State] = frozenset({"succeeded", "failed", "cancelled", "interrupted"})

_NEXT: Mapping[State, frozenset[State]] = {
    "queued": frozenset({"running", "cancelled", "interrupted"}),
    "running": FINISHED,
}


class Spec(Struct, frozen=True, kw_only=True):
    """What was asked: written once, before the job is told to anybody.

    `preset` is whole, so that an edit of its file changes the next job and not this one. `own_script`: whether the
    preset brings the script, which then lies in the job's directory. `config` is InfraForge's, overrides included;
    `names` are those that it makes in the account; `variables` are set in the script's environment.
    `idempotency` tells a repeated request: the caller, their key, and what tells this body from another.
    `trace` is the context of the request, in W3C's headers, where requests are traced.
    """

    job_id: str
    action: Action
    preset_name: str
    preset: HyperPodPreset
    dry_run: bool
    region: str
    stack_name: str
    overrides: dict[str, Value]
    variables: dict[str, str]
    names: tuple[str, ...]
    config: dict[str, Any]
    created_at: str
    own_script: bool
    checkout: str | None = None
    idempotency: tuple[str, str, str] | None = None
    trace: dict[str, str] = {}


class Progress(Struct, frozen=True):
    """Resources that are done, of how many; None where that is not known (yet)."""

    done: int
    total: int | None = None


class Outcome(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How a job ended. `command` is masked; `error` is a sentence; `plan` is a dry run's."""

    returncode: int | None
    command: str
    duration_seconds: float
    outputs: dict[str, str] = {}
    plan: dict[str, Any] | None = None
    error: str | None = None

    def described(self) -> dict[str, Any]:
        """As clients are told it: these keys are always there, `plan` and `error` where there is one."""
        return {
            "returncode": self.returncode,
            "command": self.command,
            "duration_seconds": self.duration_seconds,
            "outputs": self.outputs,
            **({} if self.plan is None else {"plan": self.plan}),
            **({} if self.error is None else {"error": self.error}),
        }


class Status(Struct, frozen=True, kw_only=True):
    """How a job stands. Times are ISO 8601 with an offset."""

    status: State = "queued"
    started_at: str | None = None
    finished_at: str | None = None
    updated_at: str
    phase: str | None = None
    progress: Progress | None = None
    result: Outcome | None = None

    @property
    def is_finished(self) -> bool:
        return self.status in FINISHED

    def begin(self, now: str) -> Status:
        self._check("running")
        return msgspec.structs.replace(self, status="running", started_at=now, updated_at=now, phase="starting")

    def move(self, now: str, phase: str | None, progress: Progress | None) -> Status:
        """The same state, further on."""
        return msgspec.structs.replace(self, updated_at=now, phase=phase, progress=progress)

    def finish(self, now: str, status: State, result: Outcome | None) -> Status:
        self._check(status)
        phase = {"succeeded": "done", "failed": "failed"}.get(status, self.phase)
        return msgspec.structs.replace(self, status=status, finished_at=now, updated_at=now, phase=phase, result=result)

    def _check(self, following: State) -> None:
        if following not in _NEXT.get(self.status, frozenset()):
            raise ValueError(f"a job that is {self.status} can't become {following}")


class Job(Struct, frozen=True):
    """What was asked, and how it stands."""

    spec: Spec
    status: Status

    @property
    def id(self) -> str:
        return self.spec.job_id

    @property
    def is_finished(self) -> bool:
        return self.status.is_finished

    @property
    def holds_stack(self) -> tuple[str, str] | None:
        """The region and stack that nobody else may touch meanwhile."""
        spec = self.spec
        return None if spec.dry_run or self.is_finished else (spec.region, spec.stack_name)

    def summary(self) -> dict[str, Any]:
        """As clients are told it among many: without its plan, which has the whole configuration."""
        told = self.described()
        if told["result"] is not None:
            told["result"].pop("plan", None)
        return told

    def described(self) -> dict[str, Any]:
        """As clients are told it."""
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
            "progress": None if status.progress is None else msgspec.to_builtins(status.progress),
            "result": None if status.result is None else status.result.described(),
        }
