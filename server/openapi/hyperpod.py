"""The addresses of deploy jobs, and what they answer."""

from __future__ import annotations

from typing import Any, Final, Literal

from msgspec import UNSET, Struct, UnsetType

from server import wire
from server.openapi.operation import ALWAYS, BODIES, WITH_BODY, Operation, Parameter

Action = Literal["deploy", "destroy"]
JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled", "interrupted"]


class JobRequest(Struct, forbid_unknown_fields=True):
    """`confirm` is the stack's name, which a live destroy wants."""

    preset: str = "small"
    dry_run: bool | UnsetType = UNSET
    overrides: dict[str, Any] = {}
    confirm: str | None = None


class Progress(Struct):
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


class Job(Struct):
    job_id: str
    action: Action
    preset: str
    status: JobStatus
    dry_run: bool
    region: str | None
    stack_name: str | None
    overrides: dict[str, Any]
    created_at: str
    started_at: str | None
    finished_at: str | None
    updated_at: str
    phase: str | None
    progress: Progress | None
    result: JobResult | None


class JobSubmitted(Struct):
    status: Literal["submitted"]
    job: Job


class JobAnswer(Struct):
    status: str
    job: Job


class JobList(Struct):
    """The newest first."""

    status: Literal["success"]
    jobs: list[Job]


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


_GROUP: Final = "Deploy jobs"
_ID: Final = Parameter("id", "the job's id", schema={"type": "string", "format": "uuid"})


def _natural(name: str, description: str, most: int | None = None) -> Parameter:
    bounds = {"minimum": 0} if most is None else {"minimum": 0, "maximum": most}
    return Parameter(name, description, "query", {"type": "integer", **bounds})


def _submitting(path: str, summary: str) -> Operation:
    return Operation(
        "post",
        path,
        _GROUP,
        summary,
        parameters=(Parameter("Idempotency-Key", "a repeated POST with it returns the same job", "header"),),
        body=JobRequest,
        status=202,
        answers=dict.fromkeys(BODIES, JobSubmitted),
        errors=(*WITH_BODY, 406, 409, 503),
    )


def _asking(path: str, summary: str, answer: Any, *parameters: Parameter) -> Operation:
    names_job = "{" in path or any(one.name == "before" for one in parameters)
    errors = (*ALWAYS, 404, 406) if names_job else (*ALWAYS, 406)
    kinds = dict.fromkeys(BODIES, answer)
    return Operation("get", path, _GROUP, summary, parameters=parameters, answers=kinds, errors=errors)


OPERATIONS: Final = (
    _submitting("/api/hyperpod/deploy", "Deploys a cluster, or plans it (`dry_run`)"),
    _submitting("/api/hyperpod/destroy", "Destroys a cluster, or plans that"),
    _asking(
        "/api/hyperpod/jobs",
        "Jobs, the newest first",
        JobList,
        _natural("limit", "at most so many", 1000),
        Parameter("status", "only those in this state", "query"),
        Parameter("before", "only those before the job with this id", "query"),
    ),
    _asking("/api/hyperpod/jobs/{id}", "One job", JobAnswer, _ID),
    Operation(
        "get",
        "/api/hyperpod/jobs/{id}/logs",
        _GROUP,
        "A job's log",
        "As JSON, bare (`text/plain`), or followed live (`text/event-stream`, its `id` the next offset).",
        parameters=(_ID, _natural("tail", "so many of the last lines"), _natural("from", "from this byte on")),
        answers={wire.JSON: JobLogsAnswer, wire.TEXT: str, wire.SSE: str},
        errors=(*ALWAYS, 404, 406),
    ),
    Operation(
        "post",
        "/api/hyperpod/jobs/{id}/cancel",
        _GROUP,
        "Cancels a job",
        parameters=(_ID,),
        status=202,
        answers=dict.fromkeys(BODIES, JobAnswer),
        errors=(*ALWAYS, 404, 406, 409),
    ),
    _asking("/api/hyperpod/stacks", "What live deploys have left standing", StackList),
    _asking("/api/hyperpod/presets", "The presets of clusters, and what each lets one override", PresetList),
    Operation(
        "get",
        "/ws/hyperpod/jobs/{job_id}/logs",
        "WebSocket",
        "One job's log, live",
        parameters=(
            Parameter("job_id", "the job's id"),
            _natural("from", "from this byte on"),
            _natural("lines", "so many of the last lines"),
        ),
        status=101,
        errors=(*ALWAYS, 404),
    ),
)
