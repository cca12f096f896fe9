"""Deploy jobs: submit, list, look, cancel; the presets they are made from."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar, get_args

import msgspec
from msgspec import Struct

from infraforge_runner.job import State
from infraforge_runner.presets import Action
from infraforge_runner.rendering import HYPERPOD
from infraforge_runner.runner import Order
from pipeline.errors import InvalidRequest
from pipeline.schema import SchemaError, check
from server import wire
from server.catalogue import describe_hyperpod_preset, describe_stack
from server.handlers.base import ApiHandler

ACCEPTED = 202
DEFAULT_LIMIT, MAX_LIMIT = 100, 1000
MAX_IDEMPOTENCY_KEY = 255  # characters


class OrderBody(Struct, forbid_unknown_fields=True):
    """What a deploy or a destroy may say."""

    preset: str = "small"
    dry_run: bool | None = None
    overrides: dict[str, Any] = {}
    confirm: str | None = None


class SubmitHandler(ApiHandler):
    """POST /api/hyperpod/deploy and /api/hyperpod/destroy."""

    action: ClassVar[Action]

    def post(self) -> None:
        kind = self.negotiate(wire.JSON, wire.MSGPACK)
        try:
            body = check(self.body(), OrderBody)
        except SchemaError as error:
            raise InvalidRequest(f"{error}.") from error
        order = Order(
            self.action,
            body.preset,
            self.services.options.dry_run if body.dry_run is None else body.dry_run,
            body.overrides,
            body.confirm,
            self._idempotency(body),
        )
        job = self.services.jobs.submit(order)
        self.set_status(ACCEPTED)
        self.set_header("Location", f"/api/hyperpod/jobs/{job.id}")
        self.send({"status": "submitted", "job": job.described()}, kind)

    def _idempotency(self, body: OrderBody) -> tuple[str, str, str] | None:
        key = self.request.headers.get("Idempotency-Key")
        if key is None:
            return None
        if not (0 < len(key) <= MAX_IDEMPOTENCY_KEY and key.isprintable()):
            raise InvalidRequest(f"Idempotency-Key: expected 1 to {MAX_IDEMPOTENCY_KEY} printable characters.")
        # MessagePack has values that JSON has not; whether one of them may stand there is not asked here.
        told = msgspec.json.encode(body, order="deterministic", enc_hook=str)
        return self.owner, key, hashlib.sha256(told).hexdigest()


class DeployHandler(SubmitHandler):
    address = "/api/hyperpod/deploy"
    action = "deploy"


class DestroyHandler(SubmitHandler):
    address = "/api/hyperpod/destroy"
    action = "destroy"


class JobsHandler(ApiHandler):
    """GET /api/hyperpod/jobs: the newest first."""

    address = "/api/hyperpod/jobs"

    def get(self) -> None:
        kind = self.negotiate(wire.JSON, wire.MSGPACK)
        jobs = self.services.jobs.newest(self._limit(), self._status(), self.get_query_argument("before", None))
        self.send({"status": "success", "jobs": [job.described() for job in jobs]}, kind)

    def _limit(self) -> int:
        limit = self.get_query_argument("limit", str(DEFAULT_LIMIT))
        # By its length first: thousands of digits are no number to Python.
        if not (
            limit.isascii() and limit.isdigit() and len(limit) <= len(str(MAX_LIMIT)) and 1 <= int(limit) <= MAX_LIMIT
        ):
            raise InvalidRequest(f"limit: expected a whole number from 1 to {MAX_LIMIT}.")
        return int(limit)

    def _status(self) -> State | None:
        asked = self.get_query_argument("status", None)
        if asked is None:
            return None
        found: State | None = next((state for state in get_args(State) if state == asked), None)
        if found is None:
            raise InvalidRequest(f"status: expected one of {', '.join(get_args(State))}.")
        return found


class JobHandler(ApiHandler):
    """GET /api/hyperpod/jobs/{job_id}."""

    address = "/api/hyperpod/jobs/{job_id}"

    def get(self, job_id: str) -> None:
        kind = self.negotiate(wire.JSON, wire.MSGPACK)
        self.send({"status": "success", "job": self.services.jobs.get(job_id).described()}, kind)


class CancelHandler(ApiHandler):
    """POST /api/hyperpod/jobs/{job_id}/cancel: no body is needed."""

    address = "/api/hyperpod/jobs/{job_id}/cancel"

    def post(self, job_id: str) -> None:
        kind = self.negotiate(wire.JSON, wire.MSGPACK)
        job = self.services.jobs.cancel(job_id)
        self.set_status(ACCEPTED)
        self.send({"status": "submitted", "job": job.described()}, kind)


class StacksHandler(ApiHandler):
    """GET /api/hyperpod/stacks: what live deploys have left standing."""

    address = "/api/hyperpod/stacks"

    def get(self) -> None:
        kind = self.negotiate(wire.JSON, wire.MSGPACK)
        stacks = [describe_stack(stack) for stack in self.services.jobs.stacks.all()]
        self.send({"status": "success", "stacks": stacks}, kind)


class HyperPodPresetsHandler(ApiHandler):
    """GET /api/hyperpod/presets."""

    address = "/api/hyperpod/presets"

    def get(self) -> None:
        kind = self.negotiate(wire.JSON, wire.MSGPACK)
        presets = self.services.runtime.store.snapshot.of(HYPERPOD)
        catalogue = [describe_hyperpod_preset(name, presets[name]) for name in sorted(presets)]
        self.send({"status": "success", "presets": sorted(presets), "catalogue": catalogue}, kind)
