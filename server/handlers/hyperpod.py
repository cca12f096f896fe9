"""Jobs: submit, list, get, cancel. Stacks, and the presets of HyperPod clusters."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar, get_args

import msgspec
from msgspec import Struct

from infraforge_runner.infraforge.presets import Action
from infraforge_runner.infraforge.rendering import HYPERPOD_PRESETS
from infraforge_runner.jobs.model import JobRequest, JobState
from pipeline.errors import InvalidRequest
from pipeline.presets.schema import SchemaError, validate
from server.handlers.base import ApiHandler
from server.inference import encoders
from server.jobs.views import describe_hyperpod_preset, describe_stack

ACCEPTED = 202
DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
MAX_IDEMPOTENCY_KEY_CHARS = 255


class JobRequestBody(Struct, forbid_unknown_fields=True):
    """The body of a deploy or a destroy."""

    preset: str = "small"
    dry_run: bool | None = None
    overrides: dict[str, Any] = {}
    confirm: str | None = None


class SubmitJobHandler(ApiHandler):
    """POST /api/hyperpod/deploy and /api/hyperpod/destroy."""

    action: ClassVar[Action]

    def post(self) -> None:
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
        self.send_body({"status": "submitted", "job": job.describe()}, content_type)

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
    route_template = "/api/hyperpod/deploy"
    action = "deploy"


class DestroyHandler(SubmitJobHandler):
    route_template = "/api/hyperpod/destroy"
    action = "destroy"


class JobsHandler(ApiHandler):
    """GET /api/hyperpod/jobs: the newest first."""

    route_template = "/api/hyperpod/jobs"

    def get(self) -> None:
        content_type = self.negotiate(encoders.JSON, encoders.MSGPACK)
        jobs = self.services.jobs.list_jobs(
            self._read_limit(), self._read_status(), self.get_query_argument("before", None)
        )
        self.send_body({"status": "success", "jobs": [job.describe() for job in jobs]}, content_type)

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
    """GET /api/hyperpod/jobs/{job_id}."""

    route_template = "/api/hyperpod/jobs/{job_id}"

    def get(self, job_id: str) -> None:
        content_type = self.negotiate(encoders.JSON, encoders.MSGPACK)
        self.send_body({"status": "success", "job": self.services.jobs.get(job_id).describe()}, content_type)


class CancelHandler(ApiHandler):
    """POST /api/hyperpod/jobs/{job_id}/cancel: no body is needed."""

    route_template = "/api/hyperpod/jobs/{job_id}/cancel"

    def post(self, job_id: str) -> None:
        content_type = self.negotiate(encoders.JSON, encoders.MSGPACK)
        job = self.services.jobs.cancel(job_id)
        self.set_status(ACCEPTED)
        self.send_body({"status": "submitted", "job": job.describe()}, content_type)


class StacksHandler(ApiHandler):
    """GET /api/hyperpod/stacks: the stacks that live deploys have created."""

    route_template = "/api/hyperpod/stacks"

    def get(self) -> None:
        content_type = self.negotiate(encoders.JSON, encoders.MSGPACK)
        stacks = [describe_stack(stack) for stack in self.services.jobs.stacks.list_all()]
        self.send_body({"status": "success", "stacks": stacks}, content_type)


class HyperPodPresetsHandler(ApiHandler):
    """GET /api/hyperpod/presets."""

    route_template = "/api/hyperpod/presets"

    def get(self) -> None:
        content_type = self.negotiate(encoders.JSON, encoders.MSGPACK)
        presets = self.services.runtime.store.snapshot.get(HYPERPOD_PRESETS)
        catalogue = [describe_hyperpod_preset(name, presets[name]) for name in sorted(presets)]
        self.send_body({"status": "success", "presets": sorted(presets), "catalogue": catalogue}, content_type)
