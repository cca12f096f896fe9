"""Deploy and destroy jobs: submit, follow and cancel them, and print their logs."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from server.client.api import ACCEPT_SSE, ApiClient, EventFields, Request, json_post
from server.client.errors import FAILED, OK, USAGE_ERROR, ApiError, ClientError, OperationFailed
from server.client.output import Output
from server.client.progress import JobProgressBar
from server.client.reconnect import ReconnectPolicy, follow_bytes, follow_events, request_with_retry

PROGRESS_POLL_INTERVAL = 1.0  # seconds
JOBS_PATH = "/api/hyperpod/jobs"


class ConfirmationRequired(ClientError):
    """The server requires the name of the stack that the job would destroy; the message contains it."""

    exit_code = USAGE_ERROR
    code = "unconfirmed"


@dataclass(frozen=True)
class JobSubmission:
    """A job to submit. `action` is "deploy" or "destroy"; `dry_run` None means the server's default.

    `confirm` is the name of the stack that a live destroy deletes.
    """

    action: str
    preset: str
    dry_run: bool | None
    overrides: Mapping[str, Any]
    confirm: str | None = None

    def create_request(self) -> Request:
        optional = {"dry_run": self.dry_run, "confirm": self.confirm}
        present = {name: value for name, value in optional.items() if value is not None}
        body = {"preset": self.preset, "overrides": self.overrides, **present}
        # The key makes a retry after a lost response safe: the server starts one job for it.
        return json_post(f"/api/hyperpod/{self.action}", body, Idempotency_Key=str(uuid.uuid4()))


async def submit_job(
    api: ApiClient, output: Output, submission: JobSubmission, reconnect: ReconnectPolicy, *, follow: bool
) -> int:
    """Submit a job; with `follow`, follow its log to its end. Raises ConfirmationRequired."""
    try:
        job = (await request_with_retry(api, submission.create_request(), reconnect))["job"]
    except ApiError as error:
        if submission.confirm is None and str(error).startswith("confirm"):
            raise ConfirmationRequired(str(error)) from error
        raise
    kind = f"dry run of {job['action']}" if job["dry_run"] else job["action"]
    output.print_message(f"job {job['job_id']}: {kind} {job['preset']}, stack {job['stack_name']} in {job['region']}")
    if follow:
        return await follow_log(api, output, job["job_id"], None, reconnect)
    if output.json:
        output.write_json(job)
    else:
        output.write(f"{job['job_id']}\n")
    return OK


async def cancel_job(api: ApiClient, output: Output, job_id: str, reconnect: ReconnectPolicy) -> int:
    response = await request_with_retry(api, json_post(_job_path(job_id, "/cancel"), {}), reconnect)
    if output.json:
        output.write_json(response["job"])
    else:
        output.print_message(f"job {job_id} is being cancelled; `forgeline logs -f {job_id}` follows it to its end")
    return OK


async def print_log(api: ApiClient, output: Output, job_id: str, tail: int | None, reconnect: ReconnectPolicy) -> int:
    """Print the log up to now; with `tail`, only so many last lines."""
    if output.json or tail is not None:
        params = {} if tail is None else {"tail": str(tail)}
        response = await request_with_retry(api, Request("GET", _job_path(job_id, "/logs"), params), reconnect)
        logs = response["logs"]
        output.write_json(logs) if output.json else output.write_bytes(logs["logs"].encode())
        return OK

    def request_from(offset: int) -> Request:
        return Request("GET", _job_path(job_id, "/logs"), {"from": str(offset)}, {"Accept": "text/plain"})

    async with aclosing(follow_bytes(api, request_from, reconnect)) as chunks:
        async for chunk in chunks:
            output.write_bytes(chunk)
    return OK


async def follow_log(api: ApiClient, output: Output, job_id: str, tail: int | None, reconnect: ReconnectPolicy) -> int:
    """Print the log as it grows, until the job ends. Returns FAILED unless the job succeeded."""
    position = {"from": "0"} if tail is None else {"tail": str(tail)}
    job: EventFields | None = None

    def resume() -> Request:
        return Request("GET", _job_path(job_id, "/logs"), position, ACCEPT_SSE)

    try:
        async with (
            _progress_bar(api, output, job_id) as bar,
            aclosing(follow_events(api, resume(), resume, reconnect)) as events,
        ):
            async for event in events:
                if output.json:
                    output.write_json(event)
                match event["type"]:
                    case "log":
                        position = {"from": str(event["next_offset"])}
                        bar.write_log(event["text"])
                    case "job":
                        job = event
                    case "error":
                        raise OperationFailed(event["error"])
    except asyncio.CancelledError:
        output.print_message(
            f"The job goes on: `forgeline logs -f {job_id}` follows it, `forgeline cancel {job_id}` stops it."
        )
        raise
    return _print_result(output, job or {})


def _print_result(output: Output, job: Mapping[str, Any]) -> int:
    if output.json:
        return OK if job.get("status") == "succeeded" else FAILED
    result = job.get("result") or {}
    if job.get("status") != "succeeded":
        reason = f": {result['error']}" if result.get("error") else "."
        output.print_error(OperationFailed(f"The job ended as {job.get('status')}{reason}"))
        return FAILED
    output.print_message(f"job {job['job_id']} succeeded after {result.get('duration_seconds', 0):.0f} s")
    for name, value in result.get("outputs", {}).items():
        output.print_message(f"  {name} = {value}")
    return OK


@asynccontextmanager
async def _progress_bar(api: ApiClient, output: Output, job_id: str) -> AsyncIterator[JobProgressBar]:
    """A log with its bar; at a terminal, a task polls the job's progress while the context is open."""
    with JobProgressBar(output) as bar:
        polling = (
            asyncio.create_task(_poll_progress(api, job_id, bar), name="poll_progress") if bar.is_visible else None
        )
        try:
            yield bar
        finally:
            if polling is not None:
                polling.cancel()


async def _poll_progress(api: ApiClient, job_id: str, bar: JobProgressBar) -> None:
    while True:
        with suppress(ClientError):  # the task that follows the log reports it, or reconnects
            bar.update((await api.get(_job_path(job_id)))["job"])
        await asyncio.sleep(PROGRESS_POLL_INTERVAL)


def _job_path(job_id: str, suffix: str = "") -> str:
    return f"{JOBS_PATH}/{quote(job_id, safe='')}{suffix}"
