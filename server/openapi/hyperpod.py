"""The operations of jobs, stacks and cluster presets, and their types (see native_types.py)."""

from __future__ import annotations

from typing import Any, Final, Literal

from msgspec import UNSET, Struct, UnsetType

from server.inference import encoders
from server.openapi.native_types import schema_name
from server.openapi.operation import BODY_CONTENT_TYPES, BODY_ERRORS, COMMON_ERRORS, ApiOperation, ApiParameter

Action = Literal["deploy", "destroy"]
JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled", "interrupted"]


@schema_name("JobRequest")
class JobRequestSchema(Struct, forbid_unknown_fields=True):
    """`confirm` is the stack's name, which a live destroy wants."""

    preset: str = "small"
    dry_run: bool | UnsetType = UNSET
    overrides: dict[str, Any] = {}
    confirm: str | None = None


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


_TAG: Final = "Deploy jobs"
_JOB_ID: Final = ApiParameter("id", "the job's id", schema={"type": "string", "format": "uuid"})


def _integer_parameter(name: str, description: str, maximum: int | None = None) -> ApiParameter:
    bounds = {"minimum": 0} if maximum is None else {"minimum": 0, "maximum": maximum}
    return ApiParameter(name, description, "query", {"type": "integer", **bounds})


def _submit_operation(path: str, summary: str) -> ApiOperation:
    return ApiOperation(
        "post",
        path,
        _TAG,
        summary,
        parameters=(ApiParameter("Idempotency-Key", "a repeated POST with it returns the same job", "header"),),
        body_type=JobRequestSchema,
        success_status=202,
        response_types=dict.fromkeys(BODY_CONTENT_TYPES, JobSubmitted),
        error_statuses=(*BODY_ERRORS, 406, 409, 503),
    )


def _get_operation(path: str, summary: str, response_type: Any, *parameters: ApiParameter) -> ApiOperation:
    names_job = "{" in path or any(parameter.name == "before" for parameter in parameters)
    error_statuses = (*COMMON_ERRORS, 404, 406) if names_job else (*COMMON_ERRORS, 406)
    response_types = dict.fromkeys(BODY_CONTENT_TYPES, response_type)
    return ApiOperation(
        "get", path, _TAG, summary, parameters=parameters, response_types=response_types, error_statuses=error_statuses
    )


OPERATIONS: Final = (
    _submit_operation("/api/hyperpod/deploy", "Deploys a cluster, or plans it (`dry_run`)"),
    _submit_operation("/api/hyperpod/destroy", "Destroys a cluster, or plans that"),
    _get_operation(
        "/api/hyperpod/jobs",
        "Jobs, the newest first",
        JobList,
        _integer_parameter("limit", "at most so many", 1000),
        ApiParameter("status", "only those in this state", "query"),
        ApiParameter("before", "only those before the job with this id", "query"),
    ),
    _get_operation("/api/hyperpod/jobs/{id}", "One job", JobAnswer, _JOB_ID),
    ApiOperation(
        "get",
        "/api/hyperpod/jobs/{id}/logs",
        _TAG,
        "A job's log",
        "As JSON, bare (`text/plain`), or followed live (`text/event-stream`, its `id` the next offset).",
        parameters=(
            _JOB_ID,
            _integer_parameter("tail", "so many of the last lines"),
            _integer_parameter("from", "from this byte on"),
        ),
        response_types={encoders.JSON: JobLogsAnswer, encoders.TEXT: str, encoders.SSE: str},
        error_statuses=(*COMMON_ERRORS, 404, 406),
    ),
    ApiOperation(
        "post",
        "/api/hyperpod/jobs/{id}/cancel",
        _TAG,
        "Cancels a job",
        parameters=(_JOB_ID,),
        success_status=202,
        response_types=dict.fromkeys(BODY_CONTENT_TYPES, JobAnswer),
        error_statuses=(*COMMON_ERRORS, 404, 406, 409),
    ),
    _get_operation("/api/hyperpod/stacks", "What live deploys have left standing", StackList),
    _get_operation("/api/hyperpod/presets", "The presets of clusters, and what each lets one override", PresetList),
    ApiOperation(
        "get",
        "/ws/hyperpod/jobs/{job_id}/logs",
        "WebSocket",
        "One job's log, live",
        parameters=(
            ApiParameter("job_id", "the job's id"),
            _integer_parameter("from", "from this byte on"),
            _integer_parameter("lines", "so many of the last lines"),
        ),
        success_status=101,
        error_statuses=(*COMMON_ERRORS, 404),
    ),
)
