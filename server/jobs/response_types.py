"""Types of the bodies and answers of jobs, stacks and cluster presets (see server/inference/response_types.py)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from infraforge_runner.jobs.model import JobState
from pipeline.envelope import schema_name

Action = Literal["deploy", "destroy"]
JobId = Annotated[str, Meta(description="the job's id", extra_json_schema={"format": "uuid"})]


@schema_name("Progress")
class JobProgressSchema(Struct):
    done: int
    total: int


class JobResult(Struct):
    """`outputs` are the stack's; a dry run has a `plan`."""

    returncode: int | None
    command: Any
    duration_seconds: float | None
    outputs: dict[str, Any]
    plan: dict[str, Any] | UnsetType = UNSET
    error: str | UnsetType | None = UNSET


@schema_name("Job")
class JobSchema(Struct):
    job_id: str
    action: Action
    preset: str
    status: JobState
    dry_run: bool
    region: str | None
    stack_name: str | None
    overrides: dict[str, Any]
    created_at: str
    started_at: str | None
    finished_at: str | None
    updated_at: str
    phase: str | None
    progress: JobProgressSchema | None
    result: JobResult | None


class JobSubmitted(Struct):
    status: Literal["submitted"]
    job: JobSchema


class JobAnswer(Struct):
    status: str
    job: JobSchema


class JobList(Struct):
    """The newest first."""

    status: Literal["success"]
    jobs: list[JobSchema]


class JobLogs(Struct):
    """Byte offsets into the job's log; `complete` once the job has ended and all of it is here."""

    job_id: str
    logs: str
    offset: int
    next_offset: int
    complete: bool


class JobLogsAnswer(Struct):
    status: Literal["success"]
    logs: JobLogs


class StackList(Struct):
    """What live deploys have left standing: stack, region, preset, since when, by which job, what it serves."""

    status: Literal["success"]
    stacks: list[dict[str, Any]]


class PresetList(Struct):
    status: Literal["success"]
    presets: list[str]
    catalogue: list[dict[str, Any]]
