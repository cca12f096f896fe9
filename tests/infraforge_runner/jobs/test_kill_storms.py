"""Kills at random moments: no job is lost, repeated or left running."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from infraforge_runner.jobs.directory import JobDirectory
from tests.async_tests import slow_async_test, within_deadline
from tests.infraforge_runner.process_helpers import (
    BURST_OUTPUT,
    BURST_SCRIPT,
    MAX_JOB_SECONDS,
    MODELS,
    RUNAWAY_SCRIPT,
    WAIT_FOR_GO_FILE,
    find_supervisors,
    is_running,
    kill_supervisor,
    read_log_until,
    start_runaway_job,
    wait_for_supervisor,
)
from tests.jobs import get_job, get_log, post_json, submit, wait_for_job, wait_for_log_text, write_hyperpod_preset
from tests.processes import ServerProcess, running_process

APPEND_ONCE = "echo once >> ran; sleep 0.2; cat ran"
OWN_STACK = {"tag": {"env": "CLUSTER_TAG", "sets": ["global.stackName"]}}
JOB_COUNT = 6


def seeds(quick: int, total: int) -> list[Any]:
    return [*range(quick), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(quick, total))]


def seeded_random(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - no secret


# --- the server ------------------------------------------------------------------------------------


async def submit_with_key(server: ServerProcess, number: int) -> str | None:
    """Submit a job with a key of its own; None where the server was killed before its answer."""
    body = {"preset": "small", "dry_run": False, "overrides": {"tag": f"stack-{number}"}}
    try:
        status, answer = await post_json(server, "/api/hyperpod/deploy", body, **{"Idempotency-Key": str(number)})
    except (aiohttp.ClientError, ConnectionError):
        return None
    assert status == 202, answer
    job_id: str = answer["job"]["job_id"]
    return job_id


@pytest.mark.parametrize("seed", seeds(1, 12))
@slow_async_test
async def test_kill_of_server_during_submissions_loses_and_repeats_no_job(folder: Path, seed: int) -> None:
    write_hyperpod_preset(folder / "presets", deploy=APPEND_ONCE, overrides=OWN_STACK, timeout=MAX_JOB_SECONDS)
    async with running_process(folder, "--jobs-at-once", "3", models=MODELS) as server:
        orders = [asyncio.create_task(submit_with_key(server, number)) for number in range(JOB_COUNT)]
        moment = seeded_random(seed).uniform(0, 0.1)
        print(f"seed {seed}: the server is killed after {moment} s")
        await asyncio.sleep(moment)
        await server.stop(signal.SIGKILL)
        promised = await asyncio.gather(*orders)
    async with running_process(folder, "--jobs-at-once", "3", models=MODELS) as server:
        repeated = [await submit_with_key(server, number) for number in range(JOB_COUNT)]
        assert len(set(repeated)) == JOB_COUNT
        assert [new for new, old in zip(repeated, promised, strict=True) if old not in (None, new)] == []
        for job_id in map(str, repeated):
            assert (await wait_for_job(server, job_id))["status"] == "succeeded"
            assert await get_log(server, job_id) == b"once\n"
        assert sorted(os.listdir(folder / "data" / "jobs")) == sorted(map(str, repeated))


@pytest.mark.parametrize("seed", seeds(0, 6))
@slow_async_test
async def test_job_survives_repeated_kills_of_server(folder: Path, seed: int) -> None:
    write_hyperpod_preset(folder / "presets", deploy=BURST_SCRIPT, timeout=MAX_JOB_SECONDS)
    moments = sorted(seeded_random(seed).sample(range(1, len(BURST_OUTPUT) * 3 // 4), 2))
    print(f"seed {seed}: a server is killed at each of {moments}")
    text, job_id = "", None
    for moment in moments:
        async with running_process(folder, models=MODELS) as server:
            job_id = job_id or (await submit(server))["job_id"]
            text += await read_log_until(server, job_id, len(text), moment)
            await server.stop(signal.SIGKILL)
    assert job_id is not None
    async with running_process(folder, models=MODELS) as server:
        text += await read_log_until(server, job_id, len(text), len(BURST_OUTPUT) + 1)
        assert text == BURST_OUTPUT
        assert (await wait_for_job(server, job_id))["status"] == "succeeded"


@slow_async_test
async def test_cancel_of_queued_job_is_completed_by_next_server(folder: Path) -> None:
    for name in ("first", "second"):
        write_hyperpod_preset(folder / "presets", name, deploy=WAIT_FOR_GO_FILE, timeout=MAX_JOB_SECONDS)
    async with running_process(folder, "--jobs-at-once", "1", models=MODELS) as server:
        first, second = [(await submit(server, preset=name))["job_id"] for name in ("first", "second")]
        await wait_for_log_text(server, first, "ready")
        await server.stop(signal.SIGKILL)
    JobDirectory(folder / "data" / "jobs" / second).request_cancel()  # as far as the server came
    async with running_process(folder, "--jobs-at-once", "1", models=MODELS) as server:
        job = await within_deadline(wait_for_job(server, second))  # at once, not when its turn comes
        assert (job["status"], job["started_at"]) == ("cancelled", None)
        assert (await get_job(server, first))["status"] == "running"
        assert (await submit(server, preset="second"))["status"] == "queued"  # its stack is free


# --- the supervisor --------------------------------------------------------------------------------


@slow_async_test
async def test_kill_of_supervisor_before_start_interrupts_job(folder: Path) -> None:
    write_hyperpod_preset(folder / "presets", deploy="true", timeout=MAX_JOB_SECONDS)
    async with running_process(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        os.kill(await wait_for_supervisor(folder, job_id), signal.SIGKILL)
        job = await within_deadline(wait_for_job(server, job_id))
        assert (job["status"], job["started_at"]) == ("interrupted", None)
        assert job["result"]["error"] == "Its supervisor died before it began; supervisor.log may say why."
        assert (await wait_for_job(server, (await submit(server))["job_id"]))["status"] == "succeeded"


@slow_async_test
async def test_kill_of_successors_still_interrupts_job(folder: Path) -> None:
    write_hyperpod_preset(folder / "presets", deploy=RUNAWAY_SCRIPT, timeout=MAX_JOB_SECONDS)
    async with running_process(folder, models=MODELS) as server:
        job_id, pids = await start_runaway_job(server, folder)
        supervisor = await wait_for_supervisor(folder, job_id)
        for _ in range(3):
            os.kill(supervisor, signal.SIGKILL)
            supervisor = await within_deadline(wait_for_supervisor(folder, job_id, other_than=supervisor))
        assert (await get_job(server, job_id))["status"] == "running"
        assert (await within_deadline(wait_for_job(server, job_id)))["status"] == "interrupted"
        assert not any(map(is_running, pids))


@pytest.mark.parametrize("seed", seeds(1, 12))
@slow_async_test
async def test_kill_of_supervisor_at_any_moment_interrupts_job(folder: Path, seed: int) -> None:
    write_hyperpod_preset(folder / "presets", deploy=f"echo $$ > script; {BURST_SCRIPT}", timeout=MAX_JOB_SECONDS)
    moment = seeded_random(seed).randrange(1, len(BURST_OUTPUT) // 2)
    print(f"seed {seed}: the supervisor is killed when a follower has read byte {moment} of {len(BURST_OUTPUT)}")
    async with running_process(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        text = await read_log_until(server, job_id, 0, moment)
        kill_supervisor(folder, job_id)
        if seed % 2:
            await server.stop(signal.SIGKILL)
            async with running_process(folder, models=MODELS) as following:
                await check_interrupted(following, job_id, text)
        else:
            await check_interrupted(server, job_id, text)
    await within_deadline(wait_for_no_supervisor(folder))


async def check_interrupted(server: ServerProcess, job_id: str, read: str) -> None:
    job = await within_deadline(wait_for_job(server, job_id))
    assert job["status"] == "interrupted"
    log = (await get_log(server, job_id)).decode()
    assert log.startswith(read)
    assert BURST_OUTPUT.startswith(log)
    following = (await submit(server))["job_id"]  # the stack is free
    await post_json(server, f"/api/hyperpod/jobs/{following}/cancel")
    await wait_for_job(server, following)


async def wait_for_no_supervisor(folder: Path) -> None:
    while find_supervisors(folder / "data"):  # noqa: ASYNC110 - no event for the end of another's process
        await asyncio.sleep(0.01)
