"""A data folder that 0.1.0 recorded, with a job running in it, and the server that takes it over.

`data_0_1_0` was written by version 0.1.0: a finished deploy with its stack and the preset of the model it serves, a
dry run, a cancelled job, a job whose server and supervisor were killed with SIGKILL, and a queued one. `answers.json`
holds the answers of that server just before. `copy_data` restores what a repository can't hold or should not: empty
folders, the reserve files, permissions, and the path of the data folder.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infraforge_runner.jobs.directory import RESERVE_BYTES
from tests.async_tests import slow_async_test, within_deadline
from tests.infraforge_runner.process_helpers import MODELS, is_running, read_log_until
from tests.jobs import get_job, get_log, post_json, submit, wait_for_job, write_hyperpod_preset
from tests.processes import ServerProcess, running_process

RECORDED = Path(__file__).parent / "data_0_1_0"
ANSWERS = json.loads((RECORDED / "answers.json").read_text())
PLACEHOLDER = "@DATA@"
QUEUED, RUNNING, CANCELLED, DRY_RUN, DEPLOY = (job["job_id"] for job in ANSWERS["jobs"])
FLAGS = ("--jobs-at-once", "1", "--keep-days", "36500")  # the recorded jobs grow old

SUPERVISOR = """
import fcntl, json, os, sys
from pathlib import Path

job = Path(sys.argv[1])
lock = os.open(job / "lock", os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
log = os.open(job / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

def write_status(**fields):
    status = {**json.loads((job / "status.json").read_bytes()), **fields}
    new = job / "status.json.new"
    new.write_text(json.dumps(status))
    new.replace(job / "status.json")
    os.utime(job / "status.json")

print("locked", flush=True)
for line in sys.stdin:
    match line.split():
        case ["log", text]:
            os.write(log, bytes.fromhex(text))
        case ["progress", done]:
            write_status(phase="deploying", progress={"done": int(done), "total": 3})
        case ["finish", state, now]:
            code = 0 if state == "succeeded" else -15
            result = {"returncode": code, "command": "bash script", "duration_seconds": 9.5}
            write_status(status=state, finished_at=now, updated_at=now, phase="done", result=result)
            break
    print("done", flush=True)
"""
"""What a supervisor of 0.1.0 does to its job's files, in a process under another name than ours have: it holds the
lock for its whole life, appends to the log, and replaces the status by a rename."""


@dataclass
class OldSupervisor:
    child: asyncio.subprocess.Process

    async def send(self, *command: str) -> None:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(" ".join(command).encode() + b"\n")
        await self.child.stdout.readline()

    async def write_log(self, data: bytes) -> None:
        await self.send("log", data.hex())


@asynccontextmanager
async def old_supervisor(folder: Path, job_id: str) -> AsyncIterator[OldSupervisor]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-S", "-c", SUPERVISOR, str(folder / "data" / "jobs" / job_id)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"locked\n"
    try:
        yield OldSupervisor(child)
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


def copy_data(folder: Path) -> None:
    """The recorded folder as `folder/data`, whole again."""
    data = folder / "data"
    shutil.copytree(RECORDED / "data", data)
    for path in data.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes().replace(PLACEHOLDER.encode(), str(data).encode()))
    for job in (data / "jobs").iterdir():
        (job / "work").mkdir(exist_ok=True)
        (job / "script").chmod(0o700)
        (job / "reserve").write_bytes(bytes(RESERVE_BYTES))


def recorded(folder: Path, job_id: str) -> dict[str, Any]:
    """What 0.1.0 answered about a job, with the paths of this copy."""
    jobs = json.loads(json.dumps(ANSWERS["jobs"]).replace(PLACEHOLDER, str(folder / "data")))
    job: dict[str, Any] = next(job for job in jobs if job["job_id"] == job_id)
    return job


async def get(server: ServerProcess, path: str) -> dict[str, Any]:
    async with server.http.get(server.url + path) as response:
        assert response.status == 200, await response.text()
        answer: dict[str, Any] = await response.json()
        return answer


@asynccontextmanager
async def server_over_copy(folder: Path) -> AsyncIterator[ServerProcess]:
    copy_data(folder)
    async with running_process(folder, *FLAGS, models=MODELS) as server:
        yield server


def test_recorded_data_holds_each_state() -> None:
    states = {job["job_id"]: (job["status"], job["dry_run"]) for job in ANSWERS["jobs"]}
    assert states == {
        QUEUED: ("queued", False),
        RUNNING: ("running", False),
        CANCELLED: ("cancelled", False),
        DRY_RUN: ("succeeded", True),
        DEPLOY: ("succeeded", False),
    }


@slow_async_test
async def test_finished_jobs_of_0_1_0_are_listed_with_the_same_answers_and_logs(folder: Path) -> None:
    async with server_over_copy(folder) as server:
        listed = {job["job_id"]: job for job in (await get(server, "/api/hyperpod/jobs"))["jobs"]}
        assert list(listed) == [QUEUED, RUNNING, CANCELLED, DRY_RUN, DEPLOY]
        for job_id in (CANCELLED, DRY_RUN, DEPLOY):
            assert listed[job_id] == await get_job(server, job_id) == recorded(folder, job_id)
            log = (folder / "data" / "jobs" / job_id / "log").read_bytes()
            assert log
            assert await get_log(server, job_id) == log
        assert "Größe: 2 Knoten ✓\n" in (await get_log(server, DEPLOY)).decode()


@slow_async_test
async def test_running_job_of_0_1_0_without_supervisor_is_interrupted_and_queued_job_starts(folder: Path) -> None:
    async with server_over_copy(folder) as server:
        job = await within_deadline(wait_for_job(server, RUNNING))
        assert (job["status"], job["started_at"]) == ("interrupted", recorded(folder, RUNNING)["started_at"])
        assert "Its supervisor died" in job["result"]["error"]
        assert await get_log(server, RUNNING) == "line 1\nhalf a line of ü".encode()
        (folder / "data" / "jobs" / QUEUED / "work" / "go").touch()
        job = await wait_for_job(server, QUEUED)
        assert (job["status"], job["created_at"]) == ("succeeded", recorded(folder, QUEUED)["created_at"])
        assert await get_log(server, QUEUED) == b"started\ndone\n"


@slow_async_test
async def test_idempotency_key_of_0_1_0_finds_its_job(folder: Path) -> None:
    write_hyperpod_preset(folder / "presets", "small")
    async with server_over_copy(folder) as server:
        body = {"preset": "small", "dry_run": False, "overrides": {"gpu_instance_count": 2}}
        key = {"Idempotency-Key": "first deploy"}
        status, answer = await post_json(server, "/api/hyperpod/deploy", body, **key)
        assert (status, answer["job"]["job_id"]) == (202, DEPLOY)
        status, answer = await post_json(server, "/api/hyperpod/deploy", {**body, "dry_run": True}, **key)
        assert (status, answer["code"]) == (409, "idempotency_conflict")


@slow_async_test
async def test_stack_of_0_1_0_and_its_model_are_there_until_a_destroy_by_preset(folder: Path) -> None:
    config = {"global": {"stackName": "small-stack"}, "cluster": {"nodes": 9}}  # edited since the deploy
    write_hyperpod_preset(folder / "presets", "small", destroy="cat config.json", config=config)
    async with server_over_copy(folder) as server:
        assert (await get(server, "/api/hyperpod/stacks"))["stacks"] == ANSWERS["stacks"]
        models = {model["name"]: model["availability"] for model in (await get(server, "/api/models"))["models"]}
        assert models["tiny-chat"] == "available"
        (folder / "data" / "jobs" / QUEUED / "work" / "go").touch()
        await wait_for_job(server, QUEUED)
        job = await submit(server, "destroy", preset="small", confirm="small-stack")
        job = await wait_for_job(server, job["job_id"])
        assert job["status"] == "succeeded", job
        assert json.loads(await get_log(server, job["job_id"]))["cluster"] == {"nodes": 2}
        stacks = [stack["stack_name"] for stack in (await get(server, "/api/hyperpod/stacks"))["stacks"]]
        assert "small-stack" not in stacks
        while "tiny-chat" in [model["name"] for model in (await get(server, "/api/models"))["models"]]:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)


@slow_async_test
async def test_running_job_of_0_1_0_with_live_supervisor_goes_on_to_its_own_end(folder: Path) -> None:
    copy_data(folder)
    before = (folder / "data" / "jobs" / RUNNING / "log").read_bytes()
    async with old_supervisor(folder, RUNNING) as supervisor, running_process(folder, *FLAGS, models=MODELS) as server:
        assert await get_job(server, RUNNING) == recorded(folder, RUNNING)
        assert (await get_job(server, QUEUED))["status"] == "queued"
        await supervisor.write_log(b" that is over\n")
        assert (await read_log_until(server, RUNNING, 0, len(before) + 14)).encode() == before + b" that is over\n"
        await supervisor.send("progress", "2")
        while (await get_job(server, RUNNING))["progress"] != {"done": 2, "total": 3}:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)
        await asyncio.sleep(1.5)  # longer than a poll: the lock is held, so nobody takes the job over
        assert (await get_job(server, RUNNING))["status"] == "running"
        await supervisor.write_log("Ende ✓\n".encode())
        await supervisor.send("finish", "succeeded", "2026-11-29T00:05:00.000000+00:00")
        job = await within_deadline(wait_for_job(server, RUNNING))
        assert (job["status"], job["result"]["returncode"]) == ("succeeded", 0)
        assert await get_log(server, RUNNING) == before + " that is over\nEnde ✓\n".encode()
        (folder / "data" / "jobs" / QUEUED / "work" / "go").touch()
        assert (await wait_for_job(server, QUEUED))["status"] == "succeeded"  # its place is free


@slow_async_test
async def test_cancel_of_running_job_of_0_1_0_is_left_to_its_supervisor(folder: Path) -> None:
    copy_data(folder)
    async with old_supervisor(folder, RUNNING) as supervisor, running_process(folder, *FLAGS, models=MODELS) as server:
        status, answer = await post_json(server, f"/api/hyperpod/jobs/{RUNNING}/cancel")
        assert (status, answer["job"]["status"]) == (202, "running")
        assert (folder / "data" / "jobs" / RUNNING / "cancel").exists()
        assert is_running(supervisor.child.pid)
        await supervisor.send("finish", "cancelled", "2026-11-29T00:05:00.000000+00:00")
        assert (await within_deadline(wait_for_job(server, RUNNING)))["status"] == "cancelled"


@slow_async_test
async def test_running_job_of_0_1_0_whose_supervisor_dies_later_is_interrupted(folder: Path) -> None:
    copy_data(folder)
    async with old_supervisor(folder, RUNNING) as supervisor, running_process(folder, *FLAGS, models=MODELS) as server:
        await supervisor.write_log(b" and more\n")
        supervisor.child.kill()
        assert (await within_deadline(wait_for_job(server, RUNNING)))["status"] == "interrupted"
        assert (await get_log(server, RUNNING)).endswith(b" and more\n")
