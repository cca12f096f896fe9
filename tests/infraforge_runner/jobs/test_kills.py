"""Jobs while processes are killed: the server, a supervisor, both, or the script's own."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path

import pytest

from tests.async_tests import slow_async_test, wait_until, within_deadline
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
    read_pid,
    release_job,
    start_runaway_job,
)
from tests.jobs import get_job, get_log, post_json, submit, wait_for_job, wait_for_log_text, write_hyperpod_preset
from tests.processes import run_to_end, running_process

# --- the server ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 13))])
@slow_async_test
async def test_job_survives_kill_of_server_and_log_is_complete(folder: Path, seed: int) -> None:
    write_hyperpod_preset(folder / "presets", deploy=BURST_SCRIPT, timeout=MAX_JOB_SECONDS)
    moment = random.Random(seed).randrange(1, len(BURST_OUTPUT) * 3 // 4)  # noqa: S311 - no secret
    print(f"seed {seed}: the server is killed when a follower has read byte {moment} of {len(BURST_OUTPUT)}")
    async with running_process(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        text = await read_log_until(server, job_id, 0, moment)
        assert (await get_job(server, job_id))["status"] == "running"
        assert (await server.stop(signal.SIGKILL)).code == -signal.SIGKILL
    async with running_process(folder, models=MODELS) as server:
        text += await read_log_until(server, job_id, len(text), len(BURST_OUTPUT) + 1)
        assert text == BURST_OUTPUT
        assert await get_log(server, job_id) == BURST_OUTPUT.encode()
        job = await get_job(server, job_id)
        assert (job["status"], job["result"]["returncode"]) == ("succeeded", 0)


@slow_async_test
async def test_accepted_job_runs_after_immediate_kill_of_server(folder: Path) -> None:
    write_hyperpod_preset(folder / "presets", deploy="echo once >> ran; cat ran", timeout=MAX_JOB_SECONDS)
    async with running_process(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        await server.stop(signal.SIGKILL)
    async with running_process(folder, models=MODELS) as server:
        assert (await wait_for_job(server, job_id))["status"] == "succeeded"
        assert await get_log(server, job_id) == b"once\n"


@slow_async_test
async def test_queue_keeps_order_over_kill_of_server(folder: Path) -> None:
    for name in ("first", "second", "third"):
        write_hyperpod_preset(folder / "presets", name, deploy=WAIT_FOR_GO_FILE, timeout=MAX_JOB_SECONDS)
    async with running_process(folder, "--jobs-at-once", "1", models=MODELS) as server:
        ids = [(await submit(server, preset=name))["job_id"] for name in ("first", "second", "third")]
        await wait_for_log_text(server, ids[0], "ready")
        await server.stop(signal.SIGKILL)
    async with running_process(folder, "--jobs-at-once", "1", models=MODELS) as server:
        assert [(await get_job(server, job_id))["status"] for job_id in ids] == ["running", "queued", "queued"]
        jobs = []
        for job_id in ids:
            await wait_for_log_text(server, job_id, "ready")
            release_job(folder, job_id)
            jobs.append(await wait_for_job(server, job_id))
    assert [job["status"] for job in jobs] == ["succeeded"] * 3
    assert jobs[0]["finished_at"] <= jobs[1]["started_at"]
    assert jobs[1]["finished_at"] <= jobs[2]["started_at"]


@slow_async_test
async def test_job_survives_stop_of_server_with_same_supervisor(folder: Path) -> None:
    write_hyperpod_preset(folder / "presets", deploy=WAIT_FOR_GO_FILE, timeout=MAX_JOB_SECONDS)
    async with running_process(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        await wait_for_log_text(server, job_id, "ready")
        assert (await server.stop(signal.SIGTERM)).code == 0
    (supervisor,) = find_supervisors(folder / "data")
    async with running_process(folder, models=MODELS) as server:
        assert (await get_job(server, job_id))["status"] == "running"
        assert find_supervisors(folder / "data") == [supervisor]
        release_job(folder, job_id)
        assert (await wait_for_job(server, job_id))["status"] == "succeeded"
        stopped = await server.stop()
    assert any("job_adopted" in line and job_id in line for line in stopped.err.splitlines()), stopped.err


@slow_async_test
async def test_second_server_on_same_data_exits_2(folder: Path) -> None:
    write_hyperpod_preset(folder / "presets", deploy=WAIT_FOR_GO_FILE, timeout=MAX_JOB_SECONDS)
    async with running_process(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        await wait_for_log_text(server, job_id, "ready")
        second = await run_to_end(folder)
        assert (second.code, second.out) == (2, "")
        assert "another server keeps its jobs in" in second.err
        assert "Traceback" not in second.err
        release_job(folder, job_id)
        assert (await wait_for_job(server, job_id))["status"] == "succeeded"


# --- the supervisor --------------------------------------------------------------------------------


@slow_async_test
async def test_kill_of_supervisor_interrupts_job_and_kills_its_processes(folder: Path) -> None:
    write_hyperpod_preset(folder / "presets", deploy=RUNAWAY_SCRIPT, timeout=MAX_JOB_SECONDS)
    async with running_process(folder, models=MODELS) as server:
        job_id, pids = await start_runaway_job(server, folder)
        kill_supervisor(folder, job_id)
        job = await within_deadline(wait_for_job(server, job_id))
        assert job["status"] == "interrupted"
        assert "Its supervisor died" in job["result"]["error"]
        assert not any(map(is_running, pids))
        following = (await submit(server))["job_id"]  # its stack is free
        await post_json(server, f"/api/hyperpod/jobs/{following}/cancel")
        assert (await wait_for_job(server, following))["status"] == "cancelled"


@slow_async_test
async def test_kill_of_server_and_supervisor_interrupts_job_at_next_start(folder: Path) -> None:
    write_hyperpod_preset(folder / "presets", deploy=RUNAWAY_SCRIPT, timeout=MAX_JOB_SECONDS)
    async with running_process(folder, models=MODELS) as server:
        job_id, pids = await start_runaway_job(server, folder)
        await server.stop(signal.SIGKILL)
    kill_supervisor(folder, job_id)
    assert all(map(is_running, pids))
    async with running_process(folder, models=MODELS) as server:
        assert (await within_deadline(wait_for_job(server, job_id)))["status"] == "interrupted"
        assert not any(map(is_running, pids))
        assert await get_log(server, job_id) == b"ready\n"


# --- the end of a script ---------------------------------------------------------------------------


@slow_async_test
async def test_cancel_kills_processes_that_ignore_sigterm(folder: Path) -> None:
    deploy = f"""
        stubborn='trap "" TERM; echo $$ > $0; for n in $(seq {MAX_JOB_SECONDS * 10}); do sleep 0.1; done'
        bash -c "$stubborn" of-its-group &
        setsid bash -c "$stubborn" of-another &
        trap 'echo asked to end; exit 0' TERM
        until [ -s of-its-group ] && [ -s of-another ]; do sleep 0.02; done
        echo ready; while :; do sleep 0.1; done
    """
    write_hyperpod_preset(folder / "presets", deploy=deploy, timeout=MAX_JOB_SECONDS)
    async with running_process(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        await wait_for_log_text(server, job_id, "ready")
        pids = [read_pid(folder, job_id, name) for name in ("of-its-group", "of-another")]
        assert (await post_json(server, f"/api/hyperpod/jobs/{job_id}/cancel"))[0] == 202
        log = await wait_for_log_text(server, job_id, "asked to end")
        assert "It was cancelled." in log
        assert all(map(is_running, pids))
        job = await within_deadline(wait_for_job(server, job_id))
        assert job["status"] == "cancelled"
        assert not any(map(is_running, pids))


@slow_async_test
async def test_cancel_kills_processes_that_left_group_and_session(folder: Path) -> None:
    write_hyperpod_preset(folder / "presets", deploy=RUNAWAY_SCRIPT, timeout=MAX_JOB_SECONDS)
    async with running_process(folder, models=MODELS) as server:
        job_id, pids = await start_runaway_job(server, folder)
        await post_json(server, f"/api/hyperpod/jobs/{job_id}/cancel")
        assert (await wait_for_job(server, job_id))["status"] == "cancelled"
        assert not any(map(is_running, pids))


@pytest.mark.parametrize("killed", ["the server", "the server and the supervisor"])
@slow_async_test
async def test_cancel_request_survives_kill_of_server(folder: Path, killed: str) -> None:
    write_hyperpod_preset(folder / "presets", deploy=WAIT_FOR_GO_FILE, timeout=MAX_JOB_SECONDS)
    async with running_process(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        await wait_for_log_text(server, job_id, "ready")
        if killed != "the server":
            (pid,) = find_supervisors(folder / "data")
            os.kill(pid, signal.SIGSTOP)  # so that it does not see the wish
        assert (await post_json(server, f"/api/hyperpod/jobs/{job_id}/cancel"))[0] == 202
        await server.stop(signal.SIGKILL)
    if killed != "the server":
        kill_supervisor(folder, job_id)
    async with running_process(folder, models=MODELS) as server:
        assert (await within_deadline(wait_for_job(server, job_id)))["status"] == "cancelled"


@slow_async_test
async def test_timeout_fails_job_and_kills_script(folder: Path) -> None:
    write_hyperpod_preset(folder / "presets", deploy=f"echo $$ > script; sleep {MAX_JOB_SECONDS}", timeout=1)
    async with running_process(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        job = await wait_for_job(server, job_id)
        assert job["status"] == "failed"
        assert job["result"]["error"].startswith("It took longer than its timeout of 1 s.")
        assert not is_running(read_pid(folder, job_id, "script"))


@slow_async_test
async def test_background_processes_are_killed_at_end_of_script(folder: Path) -> None:
    deploy = f"setsid sleep {MAX_JOB_SECONDS} & echo $! > left; echo done"
    write_hyperpod_preset(folder / "presets", deploy=deploy, timeout=MAX_JOB_SECONDS)
    async with running_process(folder, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        assert (await within_deadline(wait_for_job(server, job_id)))["status"] == "succeeded"
        assert not is_running(read_pid(folder, job_id, "left"))
        assert await get_log(server, job_id) == b"done\n"
    await within_deadline(wait_until(lambda: not find_supervisors(folder / "data")))
