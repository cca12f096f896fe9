"""Jobs survive an upgrade and a rollback, and a backup restores them; the cases that no other test covers."""

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

from infraforge_runner.jobs.process_tree import PROC
from tests.async_tests import slow_async_test, wait_until
from tests.deploy.documented import documented_commands
from tests.infraforge_runner.process_helpers import (
    MAX_JOB_SECONDS,
    MODELS,
    WAIT_FOR_GO_FILE,
    find_supervisors,
    read_pid,
    release_job,
)
from tests.jobs import get_job, get_log, submit, wait_for_job, wait_for_log_text, write_hyperpod_preset
from tests.processes import ROOT, ServerProcess, running_process
from tests.running_server import write_presets

VERSION_FILES = ("server", "pipeline", "infraforge_runner", "run.py")


@slow_async_test
async def test_killed_script_fails_job_with_signal_number(folder: Path) -> None:
    write_hyperpod_preset(folder / "presets", deploy=f"echo $$ > script; echo ready; exec sleep {MAX_JOB_SECONDS}")
    async with running_process(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        await wait_for_log_text(server, job_id, "ready")
        os.kill(read_pid(folder, job_id, "script"), signal.SIGKILL)
        job = await wait_for_job(server, job_id)
    assert (job["status"], job["result"]["error"]) == ("failed", "The script was ended by signal 9.")


@slow_async_test
async def test_job_survives_upgrade_and_rollback(folder: Path) -> None:
    write_hyperpod_preset(folder / "presets", deploy=WAIT_FOR_GO_FILE, timeout=MAX_JOB_SECONDS)
    versions = [folder / name for name in ("old", "new")]
    for version in versions:
        _copy_checkout(version)
    (old, new) = versions
    async with start_version(old, folder) as server:
        job_id = (await submit(server))["job_id"]
        await wait_for_log_text(server, job_id, "ready")
        (supervisor,) = find_supervisors(folder / "data")
        assert (await server.stop()).code == 0
    async with start_version(new, folder) as server:
        assert (await get_job(server, job_id))["status"] == "running"
        assert (await server.stop()).code == 0
    assert bytes(old) in (PROC / str(supervisor) / "environ").read_bytes()
    async with start_version(old, folder) as server:
        assert find_supervisors(folder / "data") == [supervisor]
        release_job(folder, job_id)
        assert (await wait_for_job(server, job_id))["status"] == "succeeded"
        assert (await server.stop()).code == 0


@pytest.mark.slow
@slow_async_test
async def test_backup_made_while_jobs_end_restores_completely(tmp_path: Path, folder: Path) -> None:
    deploy = "seq 20000; sleep 0.$((RANDOM % 4))"
    names = [f"cluster-{number}" for number in range(8)]
    for name in names:
        write_hyperpod_preset(folder / "presets", name, deploy=deploy)
    write_hyperpod_preset(folder / "presets", "long", deploy=WAIT_FOR_GO_FILE)
    elsewhere = folder / "elsewhere"
    async with running_process(folder, "--jobs-at-once", "9", models=MODELS) as server:
        long_id = (await submit(server, preset="long"))["job_id"]
        await wait_for_log_text(server, long_id, "ready")
        ids = [(await submit(server, preset=name))["job_id"] for name in names]
        await wait_for_job(server, ids[0])
        await asyncio.to_thread(run_documented, "backup", folder / "data", folder)
        jobs = {job_id: await wait_for_job(server, job_id) for job_id in ids}
        logs = {job_id: await get_log(server, job_id) for job_id in ids}
        stacks = await list_stacks(server)
        release_job(folder, long_id)
        await wait_for_job(server, long_id)
    await wait_until(lambda: not find_supervisors(folder / "data"))
    await asyncio.to_thread(run_documented, "restore", elsewhere / "data", folder)
    shutil.copytree(folder / "presets", elsewhere / "presets")
    async with running_process(elsewhere, models=MODELS) as server:
        restored = {job_id: await wait_for_job(server, job_id) for job_id in (*ids, long_id)}
        assert restored[long_id]["status"] == "interrupted"
        succeeded = [job_id for job_id in ids if restored[job_id]["status"] == "succeeded"]
        assert ids[0] in succeeded
        for job_id in ids:
            log = await get_log(server, job_id)
            assert logs[job_id].startswith(log)
            if job_id in succeeded:
                assert (restored[job_id], log) == (jobs[job_id], logs[job_id])
            else:
                assert restored[job_id]["status"] == "interrupted"
        assert [stack["stack_name"] for stack in await list_stacks(server)] == [stack["stack_name"] for stack in stacks]


def run_documented(name: str, data: Path, cwd: Path) -> None:
    """Run a block of commands of docs/OPERATION.md on another data folder."""
    code = documented_commands(name, **{"/var/lib/forgeline": str(data)})
    subprocess.run(["bash", "-ec", code], cwd=cwd, check=True)


async def list_stacks(server: ServerProcess) -> list[dict[str, str]]:
    async with server.http.get(server.url + "/api/hyperpod/stacks") as response:
        stacks: list[dict[str, str]] = (await response.json())["stacks"]
        return stacks


@asynccontextmanager
async def start_version(root: Path, folder: Path) -> AsyncIterator[ServerProcess]:
    """Start a server of the version in `root`."""
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
            yield ServerProcess(child, http, (await child.stdout.readline()).decode(), log, 0)
    finally:
        if child.returncode is None:
            child.kill()
            await child.communicate()


def _copy_checkout(root: Path) -> None:
    for part in VERSION_FILES:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, root / part)
