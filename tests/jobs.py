"""Deploy jobs in tests: presets whose scripts are plain shell, and the end of a job, waited for at the product's door.

write_hyperpod(tmp_path / "presets", "small", deploy="echo hello")
job = await submit(server, preset="small", dry_run=False)
job = await ended(server, job["job_id"])
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import yaml


class Serving(Protocol):
    """A server of tests: in this process (tests/serving.py), or in one of its own (tests/processes.py)."""

    @property
    def url(self) -> str: ...

    @property
    def http(self) -> aiohttp.ClientSession: ...


def write_hyperpod(
    presets: Path, name: str = "small", deploy: str = "true", destroy: str | None = None, **keys: Any
) -> None:
    """A HyperPod preset with scripts of its own, given as their text."""
    folder = presets / "hyperpod"
    folder.mkdir(parents=True, exist_ok=True)
    scripts = {}
    for action, text in (("deploy", deploy), ("destroy", destroy)):
        if text is not None:
            (folder / f"{name}-{action}.sh").write_text(text)
            scripts[action] = f"hyperpod/{name}-{action}.sh"
    preset = {"config": {"global": {"stackName": f"{name}-stack"}}, "scripts": scripts, **keys}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(preset))


async def post(server: Serving, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
    async with server.http.post(server.url + path, json=body, headers=headers) as response:
        return response.status, await response.json()


async def submit(server: Serving, action: str = "deploy", **body: Any) -> dict[str, Any]:
    status, answer = await post(server, f"/api/hyperpod/{action}", {"dry_run": False, **body})
    assert status == 202, answer
    job: dict[str, Any] = answer["job"]
    return job


async def job_of(server: Serving, job_id: str) -> dict[str, Any]:
    async with server.http.get(f"{server.url}/api/hyperpod/jobs/{job_id}") as response:
        assert response.status == 200, await response.text()
        job: dict[str, Any] = (await response.json())["job"]
        return job


async def log_of(server: Serving, job_id: str) -> bytes:
    headers = {"Accept": "text/plain"}
    async with server.http.get(f"{server.url}/api/hyperpod/jobs/{job_id}/logs", headers=headers) as response:
        assert response.status == 200, await response.text()
        return await response.read()


async def follow(server: Serving, job_id: str, begin: int = 0) -> AsyncGenerator[dict[str, Any], None]:
    """The events of a job's log, from this byte to its end."""
    headers = {"Accept": "text/event-stream"}
    url = f"{server.url}/api/hyperpod/jobs/{job_id}/logs?from={begin}"
    async with server.http.get(url, headers=headers) as response:
        assert response.status == 200, await response.text()
        async for line in response.content:
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))


async def said(server: Serving, job_id: str, text: str) -> str:
    """Returns when the job's log holds this text: what there is of it by then."""
    log = ""
    async for event in follow(server, job_id):
        log += str(event.get("text", ""))
        if text in log:
            return log
    raise AssertionError(f"the job ended without saying {text!r}: {log}")


async def ended(server: Serving, job_id: str) -> dict[str, Any]:
    """The job, when it has ended."""
    async for event in follow(server, job_id):
        if event["type"] == "job":
            return event
    raise AssertionError("the log ended without its job")
