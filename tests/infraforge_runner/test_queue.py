"""Jobs that wait: their order, their number, and that each has what stood in its preset when it was submitted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.aio import asynchronous, comes_true, unhurried
from tests.jobs import ended, job_of, log_of, post, said, submit, write_hyperpod
from tests.serving import Server, says, serving

MODELS = {"m": says("echo")}
UNTIL_TOLD = "echo begun; until [ -e go ]; do sleep 0.05; done"


def let_go(tmp_path: Path, job_id: str) -> None:
    (tmp_path / "data" / "jobs" / job_id / "work" / "go").touch()


async def submit_many(server: Server, tmp_path: Path, number: int) -> list[str]:
    """As many jobs, each of a stack of its own, that wait to be let go."""
    names = [f"of-{one}" for one in range(number)]
    for name in names:
        write_hyperpod(tmp_path / "presets", name, deploy=UNTIL_TOLD)
    await presets_are(server, *names)
    return [(await submit(server, preset=name))["job_id"] for name in names]


async def presets_are(server: Server, *names: str, description: str | None = None) -> None:
    """Returns when these presets are in force, with this description."""
    while True:
        answer = await server.get("/api/hyperpod/presets")
        found = {preset["name"]: preset.get("description") for preset in answer.json["catalogue"]}
        if all(name in found and description in (None, found[name]) for name in names):
            return


async def states(server: Server, jobs: list[str]) -> list[str]:
    return [(await job_of(server, job_id))["status"] for job_id in jobs]


async def settled_states(server: Server, jobs: list[str], running: int) -> list[str]:
    """When as many run: a script's first word can be read a moment before the server knows that it runs."""
    while (found := await states(server, jobs)).count("running") < running:
        pass
    assert found.count("running") == running
    return found


@unhurried
async def test_so_many_run_at_once_and_the_others_wait_in_their_order(tmp_path: Path) -> None:
    async with serving(tmp_path, "--jobs-at-once", "2", models=MODELS) as server:
        jobs = await submit_many(server, tmp_path, 5)
        for job_id in jobs[:2]:
            await said(server, job_id, "begun")
        assert await settled_states(server, jobs, 2) == ["running", "running", "queued", "queued", "queued"]
        for ends, begins in ((1, 2), (0, 3), (3, 4)):
            let_go(tmp_path, jobs[ends])
            await ended(server, jobs[ends])
            await said(server, jobs[begins], "begun")
            assert (await settled_states(server, jobs, 2))[begins + 1 :] == ["queued"] * (4 - begins)
        for job_id in (jobs[2], jobs[4]):
            let_go(tmp_path, job_id)
            await ended(server, job_id)
        assert await states(server, jobs) == ["succeeded"] * 5
        told = [await job_of(server, job_id) for job_id in jobs]
        for job in told:
            others = [one for one in told if one["started_at"] <= job["started_at"] < one["finished_at"]]
            assert len(others) <= 2


@unhurried
async def test_a_job_that_waits_is_cancelled_at_once_and_its_place_and_stack_are_free(tmp_path: Path) -> None:
    async with serving(tmp_path, "--jobs-at-once", "1", models=MODELS) as server:
        first, second, third = await submit_many(server, tmp_path, 3)
        status, answer = await post(server, f"/api/hyperpod/jobs/{second}/cancel")
        assert (status, answer["job"]["status"]) == (202, "cancelled")
        assert (await ended(server, second))["started_at"] is None
        assert await log_of(server, second) == b""
        again = (await submit(server, preset="of-1"))["job_id"]
        let_go(tmp_path, first)
        for job_id in (third, again):
            await said(server, job_id, "begun")
            let_go(tmp_path, job_id)
        assert await states(server, [first, second]) == ["succeeded", "cancelled"]
        assert (await ended(server, again))["status"] == "succeeded"
        assert (await job_of(server, third))["finished_at"] < (await job_of(server, again))["started_at"]


@unhurried
async def test_those_that_wait_wait_on_over_a_restart_in_their_order(tmp_path: Path) -> None:
    async with serving(tmp_path, "--jobs-at-once", "1", models=MODELS) as server:
        jobs = await submit_many(server, tmp_path, 3)
        await said(server, jobs[0], "begun")
    async with serving(tmp_path, "--jobs-at-once", "1", models=MODELS) as server:
        assert await states(server, jobs) == ["running", "queued", "queued"]
        for job_id in jobs:
            await said(server, job_id, "begun")
            let_go(tmp_path, job_id)
            await ended(server, job_id)
        started = [(await job_of(server, job_id))["started_at"] for job_id in jobs]
        assert started == sorted(started)


@unhurried
async def test_a_dry_run_that_waits_leaves_its_stack_to_others(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", deploy=UNTIL_TOLD)
    async with serving(tmp_path, "--jobs-at-once", "1", models=MODELS) as server:
        (first,) = await submit_many(server, tmp_path, 1)
        dry = [(await submit(server, dry_run=True))["job_id"] for _ in range(2)]
        live = (await submit(server))["job_id"]
        dry.append((await submit(server, dry_run=True))["job_id"])
        status, answer = await post(server, "/api/hyperpod/deploy", {"dry_run": False})
        assert (status, answer["code"]) == (409, "stack_locked")
        assert live in answer["error"]
        let_go(tmp_path, first)
        await said(server, live, "begun")
        let_go(tmp_path, live)
        for job_id in (*dry, live):
            assert (await ended(server, job_id))["status"] == "succeeded"


@unhurried
async def test_an_edit_of_a_preset_and_its_script_changes_the_next_job_and_none_before(tmp_path: Path) -> None:
    presets = tmp_path / "presets"
    before = "echo begun; until [ -e go ]; do sleep 0.05; done; cat config.json; echo as before"
    config = {"global": {"stackName": "a-stack"}, "size": "old"}
    own_stack = {"tag": {"env": "CLUSTER_TAG", "sets": ["global.stackName"]}}
    write_hyperpod(presets, "a", deploy=before, config=config, overrides=own_stack)
    async with serving(tmp_path, "--jobs-at-once", "1", models=MODELS) as server:
        running = (await submit(server, preset="a", overrides={"tag": "one"}))["job_id"]
        queued = (await submit(server, preset="a", overrides={"tag": "two"}))["job_id"]
        await said(server, running, "begun")
        edited = {"global": {"stackName": "a-stack"}, "size": "new"}
        write_hyperpod(
            presets, "a", deploy="cat config.json; echo edited", config=edited, overrides=own_stack, description="new"
        )
        await presets_are(server, "a", description="new")
        following = (await submit(server, preset="a", overrides={"tag": "three"}))["job_id"]
        let_go(tmp_path, running)
        for job_id in (running, queued):
            await said(server, job_id, "begun")
            let_go(tmp_path, job_id)
            await ended(server, job_id)
            log = (await log_of(server, job_id)).decode()
            assert '"size": "old"' in log
            assert log.endswith("as before\n")
        await ended(server, following)
        log = (await log_of(server, following)).decode()
        assert '"size": "new"' in log
        assert log.endswith("edited\n")


@asynchronous
async def test_a_repeated_key_finds_its_job_after_a_restart(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets")
    key = {"Idempotency-Key": "once"}
    async with serving(tmp_path, models=MODELS) as server:
        _, first = await post(server, "/api/hyperpod/deploy", {"preset": "small", "dry_run": False}, **key)
        await ended(server, first["job"]["job_id"])
    async with serving(tmp_path, models=MODELS) as server:
        status, again = await post(server, "/api/hyperpod/deploy", {"preset": "small", "dry_run": False}, **key)
        assert (status, again["job"]["job_id"], again["job"]["status"]) == (202, first["job"]["job_id"], "succeeded")
        status, other = await post(server, "/api/hyperpod/deploy", {"preset": "small"}, **key)
        assert (status, other["code"]) == (409, "idempotency_conflict")
        assert os.listdir(tmp_path / "data" / "jobs") == [first["job"]["job_id"]]


@pytest.mark.parametrize("many", [4, pytest.param(30, marks=pytest.mark.slow)])
@unhurried
async def test_after_many_jobs_the_server_has_no_zombie_and_no_more_files_open_than_before(
    tmp_path: Path, many: int
) -> None:
    write_hyperpod(tmp_path / "presets", deploy="echo hello")
    of_others = children()  # what servers of other tests have left to this process
    async with serving(tmp_path, models=MODELS) as server:
        await ended(server, (await submit(server))["job_id"])  # what is opened once for all is open now
        await comes_true(lambda: children() <= of_others)
        before = len(os.listdir("/proc/self/fd"))
        for number in range(many):
            await ended(server, (await submit(server, dry_run=number % 2 == 0))["job_id"])
        await comes_true(lambda: children() <= of_others)
        await comes_true(lambda: len(os.listdir("/proc/self/fd")) <= before)


def children() -> set[str]:
    """The processes that this one has started, zombies too."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}
