"""What outlives what, where no other test shows it: versions that change under a job, and a copy of the data."""

# ruff: noqa: S607 - these tools are those of the PATH

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from infraforge_runner.processes import PROC
from tests.aio import comes_true, unhurried
from tests.deploy.documented import block
from tests.infraforge_runner.living import MODELS, SECONDS, UNTIL_TOLD, let_go, pid_in, supervisors
from tests.jobs import ended, job_of, log_of, said, submit, write_hyperpod
from tests.processes import ROOT, Process, running
from tests.serving import write_presets

PARTS = ("server", "pipeline", "infraforge_runner", "run.py")


@unhurried
async def test_a_script_that_is_killed_has_failed_and_says_by_which_signal(folder: Path) -> None:
    write_hyperpod(folder / "presets", deploy=f"echo $$ > script; echo ready; exec sleep {SECONDS}")
    async with running(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        await said(server, job_id, "ready")
        os.kill(pid_in(folder, job_id, "script"), signal.SIGKILL)
        job = await ended(server, job_id)
    assert (job["status"], job["result"]["error"]) == ("failed", "The script was ended by signal 9.")


@unhurried
async def test_a_job_goes_on_while_one_version_takes_another_s_place_and_back(folder: Path) -> None:
    write_hyperpod(folder / "presets", deploy=UNTIL_TOLD, timeout=SECONDS)
    versions = [folder / name for name in ("old", "new")]
    for version in versions:
        _copy_of_ours(version)
    (old, new) = versions
    async with version_at(old, folder) as server:
        job_id = (await submit(server))["job_id"]
        await said(server, job_id, "ready")
        (supervisor,) = supervisors(folder / "data")
        assert (await server.stopped()).code == 0
    async with version_at(new, folder) as server:
        assert (await job_of(server, job_id))["status"] == "running"
        assert (await server.stopped()).code == 0
    assert bytes(old) in (PROC / str(supervisor) / "environ").read_bytes()
    async with version_at(old, folder) as server:
        assert supervisors(folder / "data") == [supervisor]
        let_go(folder, job_id)
        assert (await ended(server, job_id))["status"] == "succeeded"
        assert (await server.stopped()).code == 0


@pytest.mark.slow
@unhurried
async def test_a_copy_that_was_made_while_jobs_ended_has_everything_elsewhere(tmp_path: Path, folder: Path) -> None:
    deploy = "seq 20000; sleep 0.$((RANDOM % 4))"
    names = [f"cluster-{number}" for number in range(8)]
    for name in names:
        write_hyperpod(folder / "presets", name, deploy=deploy)
    write_hyperpod(folder / "presets", "long", deploy=UNTIL_TOLD)
    elsewhere = folder / "elsewhere"
    async with running(folder, "--jobs-at-once", "9", models=MODELS) as server:
        long = (await submit(server, preset="long"))["job_id"]
        await said(server, long, "ready")
        ids = [(await submit(server, preset=name))["job_id"] for name in names]
        await ended(server, ids[0])
        await asyncio.to_thread(typed, "backup", folder / "data", folder)
        jobs = {job_id: await ended(server, job_id) for job_id in ids}
        logs = {job_id: await log_of(server, job_id) for job_id in ids}
        stacks = await stacks_of(server)
        let_go(folder, long)
        await ended(server, long)
    await comes_true(lambda: not supervisors(folder / "data"))
    await asyncio.to_thread(typed, "restore", elsewhere / "data", folder)
    shutil.copytree(folder / "presets", elsewhere / "presets")
    async with running(elsewhere, models=MODELS) as server:
        restored = {job_id: await ended(server, job_id) for job_id in (*ids, long)}
        assert restored[long]["status"] == "interrupted"
        whole = [job_id for job_id in ids if restored[job_id]["status"] == "succeeded"]
        assert ids[0] in whole
        for job_id in ids:
            log = await log_of(server, job_id)
            assert logs[job_id].startswith(log)
            if job_id in whole:
                assert (restored[job_id], log) == (jobs[job_id], logs[job_id])
            else:
                assert restored[job_id]["status"] == "interrupted"
        assert [stack["stack_name"] for stack in await stacks_of(server)] == [one["stack_name"] for one in stacks]


def typed(name: str, data: Path, cwd: Path) -> None:
    """Runs what docs/OPERATION.md says, on another folder."""
    code = block(name, **{"/var/lib/forgeline": str(data)})
    subprocess.run(["bash", "-ec", code], cwd=cwd, check=True)


async def stacks_of(server: Process) -> list[dict[str, str]]:
    async with server.http.get(server.url + "/api/hyperpod/stacks") as response:
        found: list[dict[str, str]] = (await response.json())["stacks"]
        return found


@asynccontextmanager
async def version_at(root: Path, folder: Path) -> AsyncIterator[Process]:
    """A server of the version that lies there."""
    write_presets(folder / "presets", MODELS)
    arguments = ["--port", "0", "--presets", str(folder / "presets"), "--data", str(folder / "data")]
    log = folder / "server.log"
    with log.open("ab") as stderr:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "run.py", *arguments), cwd=root, stdout=asyncio.subprocess.PIPE, stderr=stderr
        )
    assert child.stdout is not None
    try:
        async with aiohttp.ClientSession() as http:
            yield Process(child, http, (await child.stdout.readline()).decode(), log, 0)
    finally:
        if child.returncode is None:
            child.kill()
            await child.communicate()


def _copy_of_ours(root: Path) -> None:
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, root / part)
