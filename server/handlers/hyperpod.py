"""Jobs: submit, list, get, cancel. Stacks, and the presets of HyperPod clusters."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any, ClassVar, Final, get_args

import msgspec
from msgspec import Struct

from infraforge_runner.infraforge.presets import Action
from infraforge_runner.infraforge.rendering import HYPERPOD_PRESETS
from infraforge_runner.jobs.model import JobRequest, JobState
from pipeline.errors import InvalidRequest
from pipeline.presets.schema import SchemaError, schema_name, validate
from server.handlers.base import ApiHandler
from server.inference import encoders
from server.jobs.response_types import JobAnswer, JobId, JobList, JobSubmitted, PresetList, StackList
from server.jobs.views import describe_hyperpod_preset, describe_stack
from server.openapi.operation import ApiOperation, ApiParameter, count_parameter, in_both_formats

ACCEPTED = 202
DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
MAX_IDEMPOTENCY_KEY_CHARS = 255

_TAG: Final = "Deploy jobs"
_SUBMIT_PARAMETERS: Final = (ApiParameter("Idempotency-Key", "a repeated POST with it returns the same job", "header"),)


@schema_name("JobRequest")
class JobRequestBody(Struct, forbid_unknown_fields=True):
    """`confirm` is the stack's name, which a live destroy wants."""

    preset: str = "small"
    dry_run: bool | None = None
    overrides: dict[str, Any] = {}
    confirm: str | None = None


_submit_operation = partial(
    ApiOperation,
    tag=_TAG,
    parameters=_SUBMIT_PARAMETERS,
    body=JobRequestBody,
    status=ACCEPTED,
    answers=in_both_formats(JobSubmitted),
    errors=(406, 409, 503),
)


class SubmitJobHandler(ApiHandler):
    """POST /api/hyperpod/deploy and /api/hyperpod/destroy."""

    action: ClassVar[Action]

    def submit(self) -> None:
        content_type = self.negotiate(encoders.JSON, encoders.MSGPACK)
        try:
            body = validate(self.read_body(), JobRequestBody)
        except SchemaError as error:
            raise InvalidRequest(f"{error}.") from error
        request = JobRequest(
            self.action,
            body.preset,
            self.services.options.dry_run if body.dry_run is None else body.dry_run,
            body.overrides,
            body.confirm,
            self._read_idempotency_key(body),
        )
        job = self.services.jobs.submit(request)
        self.set_status(ACCEPTED)
        self.set_header("Location", f"/api/hyperpod/jobs/{job.id}")
        self.send_body(JobSubmitted("submitted", job.describe()), content_type)

    def _read_idempotency_key(self, body: JobRequestBody) -> tuple[str, str, str] | None:
        """The caller, the key, and a digest that tells this body from others."""
        key = self.request.headers.get("Idempotency-Key")
        if key is None:
            return None
        if not (0 < len(key) <= MAX_IDEMPOTENCY_KEY_CHARS and key.isprintable()):
            raise InvalidRequest(f"Idempotency-Key: expected 1 to {MAX_IDEMPOTENCY_KEY_CHARS} printable characters.")
        # MessagePack has values that JSON has not. Whether one of them is valid is not checked here.
        canonical_body = msgspec.json.encode(body, order="deterministic", enc_hook=str)
        return self.owner, key, hashlib.sha256(canonical_body).hexdigest()


class DeployHandler(SubmitJobHandler):
    """POST /api/hyperpod/deploy."""

    action = "deploy"

    @_submit_operation(summary="Deploys a cluster, or plans it (`dry_run`)")
    def post(self) -> None:
        self.submit()


class DestroyHandler(SubmitJobHandler):
    """POST /api/hyperpod/destroy."""

    action = "destroy"

    @_submit_operation(summary="Destroys a cluster, or plans that")
    def post(self) -> None:
        self.submit()


class JobsHandler(ApiHandler):
    """GET /api/hyperpod/jobs: the newest first."""

    @ApiOperation(
        tag=_TAG,
        summary="Jobs, the newest first",
        parameters=(
            count_parameter("limit", "at most so many", MAX_LIMIT),
            ApiParameter("status", "only those in this state"),
            ApiParameter("before", "only those before the job with this id"),
        ),
        answers=in_both_formats(JobList),
        errors=(404, 406),
    )
    def get(self) -> None:
        content_type = self.negotiate(encoders.JSON, encoders.MSGPACK)
        jobs = self.services.jobs.list_jobs(
            self._read_limit(), self._read_status(), self.get_query_argument("before", None)
        )
        self.send_body(JobList("success", [job.describe() for job in jobs]), content_type)

    def _read_limit(self) -> int:
        limit = self.get_query_argument("limit", str(DEFAULT_LIMIT))
        # By its length first: thousands of digits are no number to Python.
        if not (
            limit.isascii() and limit.isdigit() and len(limit) <= len(str(MAX_LIMIT)) and 1 <= int(limit) <= MAX_LIMIT
        ):
            raise InvalidRequest(f"limit: expected a whole number from 1 to {MAX_LIMIT}.")
        return int(limit)

    def _read_status(self) -> JobState | None:
        status = self.get_query_argument("status", None)
        if status is None:
            return None
        state: JobState | None = next((state for state in get_args(JobState) if state == status), None)
        if state is None:
            raise InvalidRequest(f"status: expected one of {', '.join(get_args(JobState))}.")
        return state


class JobHandler(ApiHandler):
    """GET /api/hyperpod/jobs/{id}."""

    @ApiOperation(
        tag=_TAG,
        summary="One job",
        answers=in_both_formats(JobAnswer),
        errors=(404, 406),
    )
    def get(self, id: JobId) -> None:
        content_type = self.negotiate(encoders.JSON, encoders.MSGPACK)
        self.send_body(JobAnswer("success", self.services.jobs.get(id).describe()), content_type)


class CancelHandler(ApiHandler):
    """POST /api/hyperpod/jobs/{id}/cancel: no body is needed."""

    @ApiOperation(
        tag=_TAG,
        summary="Cancels a job",
        status=ACCEPTED,
        answers=in_both_formats(JobAnswer),
        errors=(404, 406, 409),
    )
    def post(self, id: JobId) -> None:
        content_type = self.negotiate(encoders.JSON, encoders.MSGPACK)
        job = self.services.jobs.cancel(id)
        self.set_status(ACCEPTED)
        self.send_body(JobAnswer("submitted", job.describe()), content_type)


class StacksHandler(ApiHandler):
    """GET /api/hyperpod/stacks: the stacks that live deploys have created."""

    @ApiOperation(
        tag=_TAG,
        summary="What live deploys have left standing",
        answers=in_both_formats(StackList),
        errors=(406,),
    )
    def get(self) -> None:
        content_type = self.negotiate(encoders.JSON, encoders.MSGPACK)
        stacks = [describe_stack(stack) for stack in self.services.jobs.stacks.list_all()]
        self.send_body(StackList("success", stacks), content_type)


class HyperPodPresetsHandler(ApiHandler):
    """GET /api/hyperpod/presets."""

    @ApiOperation(
        tag=_TAG,
        summary="The presets of clusters, and what each lets one override",
        answers=in_both_formats(PresetList),
        errors=(406,),
    )
    def get(self) -> None:
        content_type = self.negotiate(encoders.JSON, encoders.MSGPACK)
        presets = self.services.runtime.store.snapshot.get(HYPERPOD_PRESETS)
        catalogue = [describe_hyperpod_preset(name, presets[name]) for name in sorted(presets)]
        self.send_body(PresetList("success", sorted(presets), catalogue), content_type)
