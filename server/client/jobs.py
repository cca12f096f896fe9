"""Deploy jobs: begun, followed, stopped."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from server.client.api import EVENTS, Api, Event, Request, posting
from server.client.errors import FAILED, MISUSED, OK, ClientError, Failed, Refused
from server.client.following import Patience, follow, follow_bytes, insist
from server.client.output import Output
from server.client.progress import JobBar

LOOK = 1.0  # seconds between two looks at how far a job has come
JOBS = "/api/hyperpod/jobs"


class Unconfirmed(ClientError):
    """The server wants the name of the stack that would go; its sentence says which."""

    exit_code = MISUSED
    code = "unconfirmed"


@dataclass(frozen=True)
class Wanted:
    """A job to begin. `dry_run` is None where the server's own default holds; `confirm` is the stack's name."""

    action: str
    preset: str
    dry_run: bool | None
    overrides: Mapping[str, Any]
    confirm: str | None = None

    def request(self) -> Request:
        optional = {"dry_run": self.dry_run, "confirm": self.confirm}
        given = {name: value for name, value in optional.items() if value is not None}
        body = {"preset": self.preset, "overrides": self.overrides, **given}
        # With a key of its own a request can be sent again where its answer was lost: it begins one job.
        return posting(f"/api/hyperpod/{self.action}", body, Idempotency_Key=str(uuid.uuid4()))


async def begin(api: Api, output: Output, wanted: Wanted, patience: Patience, *, watch: bool) -> int:
    """Begins a job; with `watch`, follows it to its end. Raises Unconfirmed."""
    try:
        job = (await insist(api, wanted.request(), patience))["job"]
    except Refused as error:
        if wanted.confirm is None and str(error).startswith("confirm"):
            raise Unconfirmed(str(error)) from error
        raise
    kind = f"dry run of {job['action']}" if job["dry_run"] else job["action"]
    output.say(f"job {job['job_id']}: {kind} {job['preset']}, stack {job['stack_name']} in {job['region']}")
    if watch:
        return await watch_job(api, output, job["job_id"], None, patience)
    if output.json:
        output.document(job)
    else:
        output.write(f"{job['job_id']}\n")
    return OK


async def cancel(api: Api, output: Output, job_id: str, patience: Patience) -> int:
    answer = await insist(api, posting(_address(job_id, "/cancel"), {}), patience)
    if output.json:
        output.document(answer["job"])
    else:
        output.say(f"job {job_id} is being cancelled; `forgeline logs -f {job_id}` follows it to its end")
    return OK


async def show_logs(api: Api, output: Output, job_id: str, tail: int | None, patience: Patience) -> int:
    """The log as it is now."""
    if output.json or tail is not None:
        params = {} if tail is None else {"tail": str(tail)}
        found = (await insist(api, Request("GET", _address(job_id, "/logs"), params), patience))["logs"]
        output.document(found) if output.json else output.write_bytes(found["logs"].encode())
        return OK

    def request_from(offset: int) -> Request:
        return Request("GET", _address(job_id, "/logs"), {"from": str(offset)}, {"Accept": "text/plain"})

    async with aclosing(follow_bytes(api, request_from, patience)) as pieces:
        async for piece in pieces:
            output.write_bytes(piece)
    return OK


async def watch_job(api: Api, output: Output, job_id: str, tail: int | None, patience: Patience) -> int:
    """The log as it grows, to the end of the job. FAILED where that is another than `succeeded`."""
    at = {"from": "0"} if tail is None else {"tail": str(tail)}
    job: Event | None = None

    def request() -> Request:
        return Request("GET", _address(job_id, "/logs"), at, EVENTS)

    try:
        async with _bar(api, output, job_id) as bar, aclosing(follow(api, request(), request, patience)) as events:
            async for event in events:
                if output.json:
                    output.document(event)
                match event["type"]:
                    case "log":
                        at = {"from": str(event["next_offset"])}
                        bar.write(event["text"])
                    case "job":
                        job = event
                    case "error":
                        raise Failed(event["error"])
    except asyncio.CancelledError:
        output.say(f"The job goes on: `forgeline logs -f {job_id}` follows it, `forgeline cancel {job_id}` stops it.")
        raise
    return _conclude(output, job or {})


def _conclude(output: Output, job: Mapping[str, Any]) -> int:
    if output.json:
        return OK if job.get("status") == "succeeded" else FAILED
    result = job.get("result") or {}
    if job.get("status") != "succeeded":
        reason = f": {result['error']}" if result.get("error") else "."
        output.fail(Failed(f"The job ended as {job.get('status')}{reason}"))
        return FAILED
    output.say(f"job {job['job_id']} succeeded after {result.get('duration_seconds', 0):.0f} s")
    for name, value in result.get("outputs", {}).items():
        output.say(f"  {name} = {value}")
    return OK


@asynccontextmanager
async def _bar(api: Api, output: Output, job_id: str) -> AsyncIterator[JobBar]:
    """Where the log is shown; on a terminal, above a bar that says how far the job has come."""
    with JobBar(output) as bar:
        looking = asyncio.create_task(_look(api, job_id, bar), name="look") if bar.is_shown else None
        try:
            yield bar
        finally:
            if looking is not None:
                looking.cancel()


async def _look(api: Api, job_id: str, bar: JobBar) -> None:
    while True:
        with suppress(ClientError):  # whoever follows the log tells it, or waits
            bar.update((await api.get(_address(job_id)))["job"])
        await asyncio.sleep(LOOK)


def _address(job_id: str, rest: str = "") -> str:
    return f"{JOBS}/{quote(job_id, safe='')}{rest}"
