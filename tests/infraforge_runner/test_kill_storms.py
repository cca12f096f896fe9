"""Kills at moments that nobody chose: what was promised holds at each of them."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from infraforge_runner.directory import JobDirectory
from tests.aio import soon, unhurried
from tests.infraforge_runner.living import (
    BURSTING,
    MODELS,
    RUNNING_AWAY,
    SECONDS,
    UNTIL_TOLD,
    WHOLE,
    kill_supervisor,
    lives,
    read_until,
    run_away,
    supervisor_of,
    supervisors,
)
from tests.jobs import ended, job_of, log_of, post, said, submit, write_hyperpod
from tests.processes import Process, running

ONCE = "echo once >> ran; sleep 0.2; cat ran"
OWN_STACK = {"tag": {"env": "CLUSTER_TAG", "sets": ["global.stackName"]}}
SEVERAL = 6


def seeds(quick: int, all_of_them: int) -> list[Any]:
    return [*range(quick), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(quick, all_of_them))]


def chance(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - no secret


# --- the server ------------------------------------------------------------------------------------


async def order(server: Process, number: int) -> str | None:
    """A job by a key of its own; None where the server was gone before it had answered."""
    body = {"preset": "small", "dry_run": False, "overrides": {"tag": f"stack-{number}"}}
    try:
        status, answer = await post(server, "/api/hyperpod/deploy", body, **{"Idempotency-Key": str(number)})
    except (aiohttp.ClientError, ConnectionError):
        return None
    assert status == 202, answer
    job_id: str = answer["job"]["job_id"]
    return job_id


@pytest.mark.parametrize("seed", seeds(1, 12))
@unhurried
async def test_no_job_is_lost_or_run_twice_when_the_server_is_killed_while_jobs_come_in(
    folder: Path, seed: int
) -> None:
    write_hyperpod(folder / "presets", deploy=ONCE, overrides=OWN_STACK, timeout=SECONDS)
    async with running(folder, "--jobs-at-once", "3", models=MODELS) as server:
        orders = [asyncio.create_task(order(server, number)) for number in range(SEVERAL)]
        moment = chance(seed).uniform(0, 0.1)
        print(f"seed {seed}: the server is killed after {moment} s")
        await asyncio.sleep(moment)
        await server.stopped(signal.SIGKILL)
        promised = await asyncio.gather(*orders)
    async with running(folder, "--jobs-at-once", "3", models=MODELS) as server:
        repeated = [await order(server, number) for number in range(SEVERAL)]
        assert len(set(repeated)) == SEVERAL
        assert [new for new, old in zip(repeated, promised, strict=True) if old not in (None, new)] == []
        for job_id in map(str, repeated):
            assert (await ended(server, job_id))["status"] == "succeeded"
            assert await log_of(server, job_id) == b"once\n"
        assert sorted(os.listdir(folder / "data" / "jobs")) == sorted(map(str, repeated))


@pytest.mark.parametrize("seed", seeds(0, 6))
@unhurried
async def test_a_job_goes_on_under_server_after_server(folder: Path, seed: int) -> None:
    write_hyperpod(folder / "presets", deploy=BURSTING, timeout=SECONDS)
    moments = sorted(chance(seed).sample(range(1, len(WHOLE) * 3 // 4), 2))
    print(f"seed {seed}: a server is killed at each of {moments}")
    text, job_id = "", None
    for moment in moments:
        async with running(folder, models=MODELS) as server:
            job_id = job_id or (await submit(server))["job_id"]
            text += await read_until(server, job_id, len(text), moment)
            await server.stopped(signal.SIGKILL)
    assert job_id is not None
    async with running(folder, models=MODELS) as server:
        text += await read_until(server, job_id, len(text), len(WHOLE) + 1)
        assert text == WHOLE
        assert (await ended(server, job_id))["status"] == "succeeded"


@unhurried
async def test_a_job_that_waits_is_cancelled_by_the_next_server_where_the_first_was_killed(folder: Path) -> None:
    for name in ("first", "second"):
        write_hyperpod(folder / "presets", name, deploy=UNTIL_TOLD, timeout=SECONDS)
    async with running(folder, "--jobs-at-once", "1", models=MODELS) as server:
        first, second = [(await submit(server, preset=name))["job_id"] for name in ("first", "second")]
        await said(server, first, "ready")
        await server.stopped(signal.SIGKILL)
    JobDirectory(folder / "data" / "jobs" / second).ask_to_cancel()  # as far as the server came
    async with running(folder, "--jobs-at-once", "1", models=MODELS) as server:
        job = await soon(ended(server, second))  # at once, not when its turn comes
        assert (job["status"], job["started_at"]) == ("cancelled", None)
        assert (await job_of(server, first))["status"] == "running"
        assert (await submit(server, preset="second"))["status"] == "queued"  # its stack is free


# --- the supervisor --------------------------------------------------------------------------------


@unhurried
async def test_a_job_whose_supervisor_is_killed_before_it_began_is_interrupted_and_says_so(folder: Path) -> None:
    write_hyperpod(folder / "presets", deploy="true", timeout=SECONDS)
    async with running(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        os.kill(await supervisor_of(folder, job_id), signal.SIGKILL)
        job = await soon(ended(server, job_id))
        assert (job["status"], job["started_at"]) == ("interrupted", None)
        assert job["result"]["error"] == "Its supervisor died before it began; supervisor.log may say why."
        assert (await ended(server, (await submit(server))["job_id"]))["status"] == "succeeded"


@unhurried
async def test_a_job_is_settled_though_those_who_settle_it_are_killed_too(folder: Path) -> None:
    write_hyperpod(folder / "presets", deploy=RUNNING_AWAY, timeout=SECONDS)
    async with running(folder, models=MODELS) as server:
        job_id, pids = await run_away(server, folder)
        supervisor = await supervisor_of(folder, job_id)
        for _ in range(3):
            os.kill(supervisor, signal.SIGKILL)
            supervisor = await soon(supervisor_of(folder, job_id, other_than=supervisor))
        assert (await job_of(server, job_id))["status"] == "running"
        assert (await soon(ended(server, job_id)))["status"] == "interrupted"
        assert not any(map(lives, pids))


@pytest.mark.parametrize("seed", seeds(1, 12))
@unhurried
async def test_a_supervisor_may_die_at_any_moment(folder: Path, seed: int) -> None:
    write_hyperpod(folder / "presets", deploy=f"echo $$ > script; {BURSTING}", timeout=SECONDS)
    moment = chance(seed).randrange(1, len(WHOLE) // 2)
    print(f"seed {seed}: the supervisor is killed when a follower has read byte {moment} of {len(WHOLE)}")
    async with running(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        text = await read_until(server, job_id, 0, moment)
        kill_supervisor(folder, job_id)
        if seed % 2:
            await server.stopped(signal.SIGKILL)
            async with running(folder, models=MODELS) as following:
                await check_interrupted(following, job_id, text)
        else:
            await check_interrupted(server, job_id, text)
    await soon(no_supervisor(folder))


async def check_interrupted(server: Process, job_id: str, read: str) -> None:
    job = await soon(ended(server, job_id))
    assert job["status"] == "interrupted"
    log = (await log_of(server, job_id)).decode()
    assert log.startswith(read)
    assert WHOLE.startswith(log)
    following = (await submit(server))["job_id"]  # the stack is free
    await post(server, f"/api/hyperpod/jobs/{following}/cancel")
    await ended(server, following)


async def no_supervisor(folder: Path) -> None:
    while supervisors(folder / "data"):  # noqa: ASYNC110 - nobody tells of the end of another's process
        await asyncio.sleep(0.01)
