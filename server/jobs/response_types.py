"""Types of the bodies and answers of jobs, stacks and cluster presets (see server/inference/response_types.py)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from infraforge_runner.jobs.model import JobDescription

JobId = Annotated[str, Meta(description="the job's id", extra_json_schema={"format": "uuid"})]


class JobSubmitted(Struct):
    status: Literal["submitted"]
    job: JobDescription


class JobAnswer(Struct):
    status: str
    job: JobDescription


class JobList(Struct):
    """The newest first."""

    status: Literal["success"]
    jobs: list[JobDescription]


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
