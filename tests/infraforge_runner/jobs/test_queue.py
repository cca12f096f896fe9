"""Queued jobs: their order, how many run at once, and that each keeps the preset of its submission."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.async_tests import async_test, slow_async_test, wait_until
from tests.jobs import get_job, get_log, post_json, submit, wait_for_job, wait_for_log_text, write_hyperpod_preset
from tests.running_server import RunningServer, running_server, scripted_model

MODELS = {"m": scripted_model("echo")}
WAIT_FOR_GO_FILE = "echo begun; until [ -e go ]; do sleep 0.05; done"


def release_job(tmp_path: Path, job_id: str) -> None:
    (tmp_path / "data" / "jobs" / job_id / "work" / "go").touch()


async def submit_many(server: RunningServer, tmp_path: Path, number: int) -> list[str]:
    """Submit jobs, each with its own stack, that run until `release_job`."""
    names = [f"of-{index}" for index in range(number)]
    for name in names:
        write_hyperpod_preset(tmp_path / "presets", name, deploy=WAIT_FOR_GO_FILE)
    await wait_for_presets(server, *names)
    return [(await submit(server, preset=name))["job_id"] for name in names]


async def wait_for_presets(server: RunningServer, *names: str, description: str | None = None) -> None:
    """Return when these presets are in force, with this description."""
    while True:
        answer = await server.get("/api/hyperpod/presets")
        descriptions = {preset["name"]: preset.get("description") for preset in answer.json["catalogue"]}
        if all(name in descriptions and description in (None, descriptions[name]) for name in names):
            return


async def get_states(server: RunningServer, jobs: list[str]) -> list[str]:
    return [(await get_job(server, job_id))["status"] for job_id in jobs]


async def wait_for_running(server: RunningServer, jobs: list[str], running: int) -> list[str]:
    """The states once as many run: a script's output can be read a moment before the server reads its status."""
    while (current := await get_states(server, jobs)).count("running") < running:
        pass
    assert current.count("running") == running
    return current


@slow_async_test
async def test_queue_limits_running_jobs_and_keeps_order(tmp_path: Path) -> None:
    async with running_server(tmp_path, "--jobs-at-once", "2", models=MODELS) as server:
        jobs = await submit_many(server, tmp_path, 5)
        for job_id in jobs[:2]:
            await wait_for_log_text(server, job_id, "begun")
        assert await wait_for_running(server, jobs, 2) == ["running", "running", "queued", "queued", "queued"]
        for ending, starting in ((1, 2), (0, 3), (3, 4)):
            release_job(tmp_path, jobs[ending])
            await wait_for_job(server, jobs[ending])
            await wait_for_log_text(server, jobs[starting], "begun")
            assert (await wait_for_running(server, jobs, 2))[starting + 1 :] == ["queued"] * (4 - starting)
        for job_id in (jobs[2], jobs[4]):
            release_job(tmp_path, job_id)
            await wait_for_job(server, job_id)
        assert await get_states(server, jobs) == ["succeeded"] * 5
        listed = [await get_job(server, job_id) for job_id in jobs]
        for job in listed:
            others = [other for other in listed if other["started_at"] <= job["started_at"] < other["finished_at"]]
            assert len(others) <= 2


@slow_async_test
async def test_cancel_of_queued_job_frees_place_and_stack_at_once(tmp_path: Path) -> None:
    async with running_server(tmp_path, "--jobs-at-once", "1", models=MODELS) as server:
        first, second, third = await submit_many(server, tmp_path, 3)
        status, answer = await post_json(server, f"/api/hyperpod/jobs/{second}/cancel")
        assert (status, answer["job"]["status"]) == (202, "cancelled")
        assert (await wait_for_job(server, second))["started_at"] is None
        assert await get_log(server, second) == b""
        again = (await submit(server, preset="of-1"))["job_id"]
        release_job(tmp_path, first)
        for job_id in (third, again):
            await wait_for_log_text(server, job_id, "begun")
            release_job(tmp_path, job_id)
        assert await get_states(server, [first, second]) == ["succeeded", "cancelled"]
        assert (await wait_for_job(server, again))["status"] == "succeeded"
        assert (await get_job(server, third))["finished_at"] < (await get_job(server, again))["started_at"]


@slow_async_test
async def test_queue_keeps_order_over_restart(tmp_path: Path) -> None:
    async with running_server(tmp_path, "--jobs-at-once", "1", models=MODELS) as server:
        jobs = await submit_many(server, tmp_path, 3)
        await wait_for_log_text(server, jobs[0], "begun")
    async with running_server(tmp_path, "--jobs-at-once", "1", models=MODELS) as server:
        assert await get_states(server, jobs) == ["running", "queued", "queued"]
        for job_id in jobs:
            await wait_for_log_text(server, job_id, "begun")
            release_job(tmp_path, job_id)
            await wait_for_job(server, job_id)
        started = [(await get_job(server, job_id))["started_at"] for job_id in jobs]
        assert started == sorted(started)


@slow_async_test
async def test_queued_dry_run_holds_no_stack(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", deploy=WAIT_FOR_GO_FILE)
    async with running_server(tmp_path, "--jobs-at-once", "1", models=MODELS) as server:
        (first,) = await submit_many(server, tmp_path, 1)
        dry = [(await submit(server, dry_run=True))["job_id"] for _ in range(2)]
        live = (await submit(server))["job_id"]
        dry.append((await submit(server, dry_run=True))["job_id"])
        status, answer = await post_json(server, "/api/hyperpod/deploy", {"dry_run": False})
        assert (status, answer["code"]) == (409, "stack_locked")
        assert live in answer["error"]
        release_job(tmp_path, first)
        await wait_for_log_text(server, live, "begun")
        release_job(tmp_path, live)
        for job_id in (*dry, live):
            assert (await wait_for_job(server, job_id))["status"] == "succeeded"


@slow_async_test
async def test_preset_edit_changes_only_jobs_submitted_later(tmp_path: Path) -> None:
    presets = tmp_path / "presets"
    before = "echo begun; until [ -e go ]; do sleep 0.05; done; cat config.json; echo as before"
    config = {"global": {"stackName": "a-stack"}, "size": "old"}
    own_stack = {"tag": {"env": "CLUSTER_TAG", "sets": ["global.stackName"]}}
    write_hyperpod_preset(presets, "a", deploy=before, config=config, overrides=own_stack)
    async with running_server(tmp_path, "--jobs-at-once", "1", models=MODELS) as server:
        running = (await submit(server, preset="a", overrides={"tag": "one"}))["job_id"]
        queued = (await submit(server, preset="a", overrides={"tag": "two"}))["job_id"]
        await wait_for_log_text(server, running, "begun")
        edited = {"global": {"stackName": "a-stack"}, "size": "new"}
        write_hyperpod_preset(
            presets, "a", deploy="cat config.json; echo edited", config=edited, overrides=own_stack, description="new"
        )
        await wait_for_presets(server, "a", description="new")
        following = (await submit(server, preset="a", overrides={"tag": "three"}))["job_id"]
        release_job(tmp_path, running)
        for job_id in (running, queued):
            await wait_for_log_text(server, job_id, "begun")
            release_job(tmp_path, job_id)
            await wait_for_job(server, job_id)
            log = (await get_log(server, job_id)).decode()
            assert '"size": "old"' in log
            assert log.endswith("as before\n")
        await wait_for_job(server, following)
        log = (await get_log(server, following)).decode()
        assert '"size": "new"' in log
        assert log.endswith("edited\n")


@async_test
async def test_idempotency_key_finds_job_after_restart(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets")
    key = {"Idempotency-Key": "once"}
    async with running_server(tmp_path, models=MODELS) as server:
        _, first = await post_json(server, "/api/hyperpod/deploy", {"preset": "small", "dry_run": False}, **key)
        await wait_for_job(server, first["job"]["job_id"])
    async with running_server(tmp_path, models=MODELS) as server:
        status, again = await post_json(server, "/api/hyperpod/deploy", {"preset": "small", "dry_run": False}, **key)
        assert (status, again["job"]["job_id"], again["job"]["status"]) == (202, first["job"]["job_id"], "succeeded")
        status, other = await post_json(server, "/api/hyperpod/deploy", {"preset": "small"}, **key)
        assert (status, other["code"]) == (409, "idempotency_conflict")
        assert os.listdir(tmp_path / "data" / "jobs") == [first["job"]["job_id"]]


@pytest.mark.parametrize("many", [4, pytest.param(30, marks=pytest.mark.slow)])
@slow_async_test
async def test_many_jobs_leak_no_process_and_no_descriptor(tmp_path: Path, many: int) -> None:
    write_hyperpod_preset(tmp_path / "presets", deploy="echo hello")
    children_before = child_pids()  # left to this process by servers of other tests
    async with running_server(tmp_path, models=MODELS) as server:
        await wait_for_job(server, (await submit(server))["job_id"])  # so that what is opened once is open
        await wait_until(lambda: child_pids() <= children_before)
        before = len(os.listdir("/proc/self/fd"))
        for number in range(many):
            await wait_for_job(server, (await submit(server, dry_run=number % 2 == 0))["job_id"])
        await wait_until(lambda: child_pids() <= children_before)
        await wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def child_pids() -> set[str]:
    """The pids of this process's children, zombies too."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}
