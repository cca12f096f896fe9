"""What becomes of jobs when processes are killed, for real: the server, a supervisor, both, or the script's own."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from tests.aio import comes_true, soon, unhurried
from tests.infraforge_runner.living import (
    BURSTING,
    MODELS,
    RUNNING_AWAY,
    SECONDS,
    UNTIL_TOLD,
    WHOLE,
    kill_supervisor,
    let_go,
    lives,
    pid_in,
    read_until,
    run_away,
    supervisors,
)
from tests.jobs import ended, job_of, log_of, post, said, submit, write_hyperpod
from tests.processes import ran, running

# --- the server ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 13))])
@unhurried
async def test_a_job_goes_on_without_its_server_and_no_byte_of_its_log_is_lost(folder: Path, seed: int) -> None:
    write_hyperpod(folder / "presets", deploy=BURSTING, timeout=SECONDS)
    moment = random.Random(seed).randrange(1, len(WHOLE) * 3 // 4)  # noqa: S311 - no secret
    print(f"seed {seed}: the server is killed when a follower has read byte {moment} of {len(WHOLE)}")
    async with running(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        text = await read_until(server, job_id, 0, moment)
        assert (await job_of(server, job_id))["status"] == "running"
        assert (await server.stopped(signal.SIGKILL)).code == -signal.SIGKILL
    async with running(folder, models=MODELS) as server:
        text += await read_until(server, job_id, len(text), len(WHOLE) + 1)
        assert text == WHOLE
        assert await log_of(server, job_id) == WHOLE.encode()
        job = await job_of(server, job_id)
        assert (job["status"], job["result"]["returncode"]) == ("succeeded", 0)


@unhurried
async def test_what_was_answered_with_202_runs_though_the_server_is_killed_at_once(folder: Path) -> None:
    write_hyperpod(folder / "presets", deploy="echo once >> ran; cat ran", timeout=SECONDS)
    async with running(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        await server.stopped(signal.SIGKILL)
    async with running(folder, models=MODELS) as server:
        assert (await ended(server, job_id))["status"] == "succeeded"
        assert await log_of(server, job_id) == b"once\n"


@unhurried
async def test_a_queued_job_keeps_its_place_over_a_killed_server(folder: Path) -> None:
    for name in ("first", "second", "third"):
        write_hyperpod(folder / "presets", name, deploy=UNTIL_TOLD, timeout=SECONDS)
    async with running(folder, "--jobs-at-once", "1", models=MODELS) as server:
        ids = [(await submit(server, preset=name))["job_id"] for name in ("first", "second", "third")]
        await said(server, ids[0], "ready")
        await server.stopped(signal.SIGKILL)
    async with running(folder, "--jobs-at-once", "1", models=MODELS) as server:
        assert [(await job_of(server, job_id))["status"] for job_id in ids] == ["running", "queued", "queued"]
        jobs = []
        for job_id in ids:
            await said(server, job_id, "ready")
            let_go(folder, job_id)
            jobs.append(await ended(server, job_id))
    assert [job["status"] for job in jobs] == ["succeeded"] * 3
    assert jobs[0]["finished_at"] <= jobs[1]["started_at"]
    assert jobs[1]["finished_at"] <= jobs[2]["started_at"]


@unhurried
async def test_a_server_that_is_told_to_stop_leaves_its_job_to_the_next(folder: Path) -> None:
    write_hyperpod(folder / "presets", deploy=UNTIL_TOLD, timeout=SECONDS)
    async with running(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        await said(server, job_id, "ready")
        assert (await server.stopped(signal.SIGTERM)).code == 0
    (supervisor,) = supervisors(folder / "data")
    async with running(folder, models=MODELS) as server:
        assert (await job_of(server, job_id))["status"] == "running"
        assert supervisors(folder / "data") == [supervisor]
        let_go(folder, job_id)
        assert (await ended(server, job_id))["status"] == "succeeded"
        told = await server.stopped()
    assert any("job picked up" in line and job_id in line for line in told.err.splitlines()), told.err


@unhurried
async def test_a_second_server_on_the_same_data_is_refused_and_the_first_goes_on(folder: Path) -> None:
    write_hyperpod(folder / "presets", deploy=UNTIL_TOLD, timeout=SECONDS)
    async with running(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        await said(server, job_id, "ready")
        second = await ran(folder)
        assert (second.code, second.out) == (2, "")
        assert "another server keeps its jobs in" in second.err
        assert "Traceback" not in second.err
        let_go(folder, job_id)
        assert (await ended(server, job_id))["status"] == "succeeded"


# --- the supervisor --------------------------------------------------------------------------------


@unhurried
async def test_a_job_whose_supervisor_is_killed_is_interrupted_and_leaves_nothing(folder: Path) -> None:
    write_hyperpod(folder / "presets", deploy=RUNNING_AWAY, timeout=SECONDS)
    async with running(folder, models=MODELS) as server:
        job_id, pids = await run_away(server, folder)
        kill_supervisor(folder, job_id)
        job = await soon(ended(server, job_id))
        assert job["status"] == "interrupted"
        assert "Its supervisor died" in job["result"]["error"]
        assert not any(map(lives, pids))
        following = (await submit(server))["job_id"]  # its stack is free
        await post(server, f"/api/hyperpod/jobs/{following}/cancel")
        assert (await ended(server, following))["status"] == "cancelled"


@unhurried
async def test_a_job_that_lost_both_server_and_supervisor_is_settled_at_the_next_start(folder: Path) -> None:
    write_hyperpod(folder / "presets", deploy=RUNNING_AWAY, timeout=SECONDS)
    async with running(folder, models=MODELS) as server:
        job_id, pids = await run_away(server, folder)
        await server.stopped(signal.SIGKILL)
    kill_supervisor(folder, job_id)
    assert all(map(lives, pids))
    async with running(folder, models=MODELS) as server:
        assert (await soon(ended(server, job_id)))["status"] == "interrupted"
        assert not any(map(lives, pids))
        assert await log_of(server, job_id) == b"ready\n"


# --- the end of a script ---------------------------------------------------------------------------


@unhurried
async def test_a_cancelled_job_is_asked_to_end_and_what_does_not_is_killed(folder: Path) -> None:
    deploy = f"""
        stubborn='trap "" TERM; echo $$ > $0; for n in $(seq {SECONDS * 10}); do sleep 0.1; done'
        bash -c "$stubborn" of-its-group &
        setsid bash -c "$stubborn" of-another &
        trap 'echo asked to end; exit 0' TERM
        until [ -s of-its-group ] && [ -s of-another ]; do sleep 0.02; done
        echo ready; while :; do sleep 0.1; done
    """
    write_hyperpod(folder / "presets", deploy=deploy, timeout=SECONDS)
    async with running(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        await said(server, job_id, "ready")
        pids = [pid_in(folder, job_id, name) for name in ("of-its-group", "of-another")]
        assert (await post(server, f"/api/hyperpod/jobs/{job_id}/cancel"))[0] == 202
        log = await said(server, job_id, "asked to end")
        assert "It was cancelled." in log
        assert all(map(lives, pids))
        job = await soon(ended(server, job_id))
        assert job["status"] == "cancelled"
        assert not any(map(lives, pids))


@unhurried
async def test_a_cancelled_job_leaves_nothing_however_far_its_processes_went(folder: Path) -> None:
    write_hyperpod(folder / "presets", deploy=RUNNING_AWAY, timeout=SECONDS)
    async with running(folder, models=MODELS) as server:
        job_id, pids = await run_away(server, folder)
        await post(server, f"/api/hyperpod/jobs/{job_id}/cancel")
        assert (await ended(server, job_id))["status"] == "cancelled"
        assert not any(map(lives, pids))


@pytest.mark.parametrize("killed", ["the server", "the server and the supervisor"])
@unhurried
async def test_a_wish_to_cancel_outlives_the_server_that_took_it(folder: Path, killed: str) -> None:
    write_hyperpod(folder / "presets", deploy=UNTIL_TOLD, timeout=SECONDS)
    async with running(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        await said(server, job_id, "ready")
        if killed != "the server":
            (pid,) = supervisors(folder / "data")
            os.kill(pid, signal.SIGSTOP)  # so that it does not see the wish
        assert (await post(server, f"/api/hyperpod/jobs/{job_id}/cancel"))[0] == 202
        await server.stopped(signal.SIGKILL)
    if killed != "the server":
        kill_supervisor(folder, job_id)
    async with running(folder, models=MODELS) as server:
        assert (await soon(ended(server, job_id)))["status"] == "cancelled"


@unhurried
async def test_a_job_that_takes_longer_than_its_timeout_has_failed(folder: Path) -> None:
    write_hyperpod(folder / "presets", deploy=f"echo $$ > script; sleep {SECONDS}", timeout=1)
    async with running(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        job = await ended(server, job_id)
        assert job["status"] == "failed"
        assert job["result"]["error"].startswith("It took longer than its timeout of 1 s.")
        assert not lives(pid_in(folder, job_id, "script"))


@unhurried
async def test_what_a_script_leaves_in_the_background_ends_with_it(folder: Path) -> None:
    deploy = f"setsid sleep {SECONDS} & echo $! > left; echo done"
    write_hyperpod(folder / "presets", deploy=deploy, timeout=SECONDS)
    async with running(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        assert (await soon(ended(server, job_id)))["status"] == "succeeded"
        assert not lives(pid_in(folder, job_id, "left"))
        assert await log_of(server, job_id) == b"done\n"
    await soon(comes_true(lambda: not supervisors(folder / "data")))
