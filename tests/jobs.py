"""Deploy jobs in tests: presets whose scripts are plain shell, and requests to the API of jobs.

write_hyperpod_preset(tmp_path / "presets", "small", deploy="echo hello")
job = await submit(server, preset="small", dry_run=False)
job = await wait_for_job(server, job["job_id"])
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import yaml


class ServerAccess(Protocol):
    """A test's server: in this process (tests/running_server.py), or in one of its own (tests/processes.py)."""

    @property
    def url(self) -> str: ...

    @property
    def http(self) -> aiohttp.ClientSession: ...


def write_hyperpod_preset(
    presets: Path, name: str = "small", deploy: str = "true", destroy: str | None = None, **keys: Any
) -> None:
    """Write a HyperPod preset; `deploy` and `destroy` are the texts of its scripts."""
    folder = presets / "hyperpod"
    folder.mkdir(parents=True, exist_ok=True)
    scripts = {}
    for action, text in (("deploy", deploy), ("destroy", destroy)):
        if text is not None:
            (folder / f"{name}-{action}.sh").write_text(text)
            scripts[action] = f"hyperpod/{name}-{action}.sh"
    preset = {"config": {"global": {"stackName": f"{name}-stack"}}, "scripts": scripts, **keys}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(preset))


async def post_json(server: ServerAccess, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
    async with server.http.post(server.url + path, json=body, headers=headers) as response:
        return response.status, await response.json()


async def submit(server: ServerAccess, action: str = "deploy", **body: Any) -> dict[str, Any]:
    status, answer = await post_json(server, f"/api/hyperpod/{action}", {"dry_run": False, **body})
    assert status == 202, answer
    job: dict[str, Any] = answer["job"]
    return job


async def get_job(server: ServerAccess, job_id: str) -> dict[str, Any]:
    async with server.http.get(f"{server.url}/api/hyperpod/jobs/{job_id}") as response:
        assert response.status == 200, await response.text()
        job: dict[str, Any] = (await response.json())["job"]
        return job


async def get_log(server: ServerAccess, job_id: str) -> bytes:
    headers = {"Accept": "text/plain"}
    async with server.http.get(f"{server.url}/api/hyperpod/jobs/{job_id}/logs", headers=headers) as response:
        assert response.status == 200, await response.text()
        return await response.read()


async def follow_log(server: ServerAccess, job_id: str, offset: int = 0) -> AsyncGenerator[dict[str, Any], None]:
    """The events of a job's log from an offset to its end."""
    headers = {"Accept": "text/event-stream"}
    url = f"{server.url}/api/hyperpod/jobs/{job_id}/logs?from={offset}"
    async with server.http.get(url, headers=headers) as response:
        assert response.status == 200, await response.text()
        async for line in response.content:
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))


async def wait_for_log_text(server: ServerAccess, job_id: str, text: str) -> str:
    """Return the job's log as soon as it contains a text."""
    log = ""
    async for event in follow_log(server, job_id):
        log += str(event.get("text", ""))
        if text in log:
            return log
    raise AssertionError(f"the job ended without saying {text!r}: {log}")


async def wait_for_job(server: ServerAccess, job_id: str) -> dict[str, Any]:
    """Return the job as it is at its end."""
    async for event in follow_log(server, job_id):
        if event["type"] == "job":
            return event
    raise AssertionError("the log ended without its job")
