"""A job from its submission to its end: how it is stopped, how a stack is held, and who hears of each step."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.aio import comes_true, unhurried
from tests.infraforge_runner.living import MODELS, SECONDS, UNTIL_TOLD, let_go
from tests.jobs import ended, follow, job_of, log_of, post, said, submit, write_hyperpod
from tests.processes import ran, running
from tests.server.scraping import scrape
from tests.serving import serving
from tests.sockets import talking

CREDENTIALS = '{"Version": 1, "AccessKeyId": "AKIAIOSFODNN7EXAMPLE", "SecretAccessKey": "made-up"}'


# --- how it is stopped -----------------------------------------------------------------------------


@unhurried
async def test_each_process_is_asked_to_end_once_and_has_time_for_it(tmp_path: Path) -> None:
    deploy = """
        setsid bash -c 'trap "echo child asked; exit" TERM; echo ready; while :; do sleep 0.02; done' &
        trap 'echo script asked; n=$((n + 1))' TERM
        until [ "$n" ]; do sleep 0.02; done
        for rest in $(seq 20); do sleep 0.02; done
        echo cleaned up after $n
    """
    write_hyperpod(tmp_path / "presets", deploy=deploy, timeout=SECONDS)
    async with serving(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        await said(server, job_id, "ready")
        for _ in range(2):
            status, answer = await post(server, f"/api/hyperpod/jobs/{job_id}/cancel")
            assert (status, answer["job"]["job_id"]) == (202, job_id)
        job = await ended(server, job_id)
        assert job["status"] == "cancelled"
        assert job["result"]["error"].startswith("It was cancelled.")
        lines = (await log_of(server, job_id)).decode().splitlines()
        assert lines[:2] == ["ready", "[forgeline] It was cancelled. What it has started is ended now."]
        by_script = [line for line in lines[2:] if line != "Terminated"]  # which bash says of its sleep
        assert sorted(by_script) == ["child asked", "cleaned up after 1", "script asked"]


@unhurried
async def test_who_asks_aws_for_credentials_is_not_taken_for_a_process_of_the_job(tmp_path: Path) -> None:
    helper, config = tmp_path / "helper", tmp_path / "config"
    helper.write_text(f"#!/bin/sh\necho asked >> {tmp_path}/asked\nsleep 0.3\necho '{CREDENTIALS}'\n")
    helper.chmod(0o700)
    config.write_text(f"[default]\ncredential_process = {helper}\n")
    deploy = f"until [ -e {tmp_path}/asked ]; do sleep 0.02; done; exit 1"
    write_hyperpod(tmp_path / "presets", deploy=deploy, timeout=SECONDS)
    environ = {
        "AWS_CONFIG_FILE": str(config),
        "AWS_PROFILE": "default",
        "AWS_ACCESS_KEY_ID": "",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    }
    async with running(tmp_path, models=MODELS, environ=environ) as server:
        job = await ended(server, (await submit(server))["job_id"])
        assert job["result"]["error"] == "The script ended with exit status 1."
        supervisor_log = (tmp_path / "data" / "jobs" / job["job_id"] / "supervisor.log").read_text()
        assert "Unknown child process" not in supervisor_log
        assert "no reason" in supervisor_log  # it had credentials, and so it asked


@unhurried
async def test_a_huge_line_is_whole_and_does_not_hold_up_the_end(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", deploy="head -c 5000000 /dev/zero | tr '\\0' x; printf end")
    async with serving(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        text = "".join([event.get("text", "") async for event in follow(server, job_id)])
        assert text == "x" * 5_000_000 + "end"
        assert await log_of(server, job_id) == text.encode()


# --- the stack -------------------------------------------------------------------------------------


@unhurried
async def test_of_many_at_once_one_gets_the_stack_and_gives_it_back_at_its_end(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", deploy=UNTIL_TOLD, destroy="true", timeout=SECONDS)
    write_hyperpod(tmp_path / "presets", "elsewhere", deploy="true", region="eu-west-1", timeout=SECONDS)
    body = {"preset": "small", "dry_run": False}
    async with serving(tmp_path, models=MODELS) as server:
        answers = await asyncio.gather(*(post(server, "/api/hyperpod/deploy", body) for _ in range(10)))
        (first,) = [answer["job"]["job_id"] for status, answer in answers if status == 202]
        refused = [answer for status, answer in answers if status == 409]
        assert len(refused) == 9
        assert all(answer["code"] == "stack_locked" and first in answer["error"] for answer in refused)
        status, answer = await post(server, "/api/hyperpod/destroy", {**body, "confirm": "small-stack"})
        assert (status, answer["code"]) == (409, "stack_locked")
        await ended(server, (await submit(server, preset="elsewhere"))["job_id"])
        await said(server, first, "ready")
        let_go(tmp_path, first)
        await ended(server, first)
        second = (await submit(server))["job_id"]
        await post(server, f"/api/hyperpod/jobs/{second}/cancel")
        await ended(server, second)
        await submit(server, "destroy", confirm="small-stack")


# --- who hears of it -------------------------------------------------------------------------------


@unhurried
async def test_the_feed_and_the_log_tell_what_a_server_found_at_its_start_and_each_step(folder: Path) -> None:
    for name in ("small", "large"):
        write_hyperpod(folder / "presets", name, deploy=UNTIL_TOLD, timeout=SECONDS)
    async with running(folder, "--jobs-at-once", "1", models=MODELS) as server:
        first = (await submit(server, preset="small"))["job_id"]
        second = (await submit(server, preset="large"))["job_id"]
        await said(server, first, "ready")
        await server.stopped()
    async with running(folder, "--jobs-at-once", "1", models=MODELS) as server, talking(server) as talk:
        await talk.say(op="subscribe", id="f", topics=["jobs"])
        snapshot = await talk.next("f")
        assert [(job["job_id"], job["status"]) for job in snapshot["jobs"]] == [(second, "queued"), (first, "running")]
        heard: dict[str, list[str]] = {first: [], second: []}
        for job_id in (first, second):
            await said(server, job_id, "ready")
            let_go(folder, job_id)
        while "succeeded" not in heard[second]:
            message = await talk.next("f")
            heard[message["job_id"]].append(message["status"])
        assert list(dict.fromkeys(heard[first])) == ["succeeded"]
        assert list(dict.fromkeys(heard[second])) == ["running", "succeeded"]
        told = (await server.stopped()).err
    events = [json.loads(line) for line in told.splitlines()]
    assert steps(events, first) == [("job picked up", "running"), ("job", "succeeded")]
    assert steps(events, second) == [("job picked up", "queued"), ("job", "running"), ("job", "succeeded")]


def steps(events: list[dict[str, Any]], job_id: str) -> list[tuple[str, str]]:
    """What the server's log says of a job."""
    return [(event["event"], event["status"]) for event in events if event.get("job_id") == job_id]


@unhurried
async def test_the_metrics_count_jobs_their_time_and_who_follows_them(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", "long", deploy=UNTIL_TOLD, timeout=SECONDS)
    write_hyperpod(tmp_path / "presets", "waits", deploy="true", timeout=SECONDS)
    async with serving(tmp_path, "--jobs-at-once", "1", models=MODELS) as server:
        first = (await submit(server, preset="long"))["job_id"]
        second = (await submit(server, preset="waits"))["job_id"]
        follower = asyncio.create_task(ended(server, first))
        await said(server, first, "ready")
        await comes_true(lambda: server.services.jobs.followers == 1)
        while (await job_of(server, first))["status"] != "running":
            pass
        numbers = await scrape(server)
        assert numbers.by("jobs", "status") == {"running": 1, "queued": 1}
        assert numbers("log_followers") == 1
        await post(server, f"/api/hyperpod/jobs/{second}/cancel")
        let_go(tmp_path, first)
        await follower
        await comes_true(lambda: server.services.jobs.followers == 0)
        numbers = await scrape(server)
        assert numbers.by("jobs", "status") == {"succeeded": 1, "cancelled": 1}
        assert numbers("log_followers") == 0
        # One that never began has taken no time.
        assert numbers.by("job_duration_seconds_count", "status") == {"succeeded": 1}
        assert numbers("job_duration_seconds_sum", action="deploy") > 0


# --- where it can't live ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["below a file", "a file"])
@unhurried
async def test_a_data_folder_that_can_not_be_one_is_exit_2_with_a_sentence(tmp_path: Path, kind: str) -> None:
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "pipeline.yaml").write_text("stages: [decode_frames, invoke, normalize_envelope]\n")
    (tmp_path / "file").touch()
    data = tmp_path / "file" / ("below" if kind == "below a file" else "")
    told = await ran(tmp_path, "--data", os.fspath(data))
    assert (told.code, told.out) == (2, "")
    assert f"--data {data} can't be used: " in told.err
    assert "Traceback" not in told.err


@unhurried
async def test_a_job_whose_directory_somebody_removed_is_over_when_its_script_is(
    tmp_path: Path,
) -> None:
    deploy = f"echo ready; until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    write_hyperpod(tmp_path / "presets", deploy=deploy, timeout=SECONDS)
    async with serving(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        await said(server, job_id, "ready")
        shutil.rmtree(tmp_path / "data" / "jobs" / job_id)
        status, answer = await post(server, "/api/hyperpod/deploy", {"dry_run": False})
        assert (status, answer["code"]) == (409, "stack_locked")
        (tmp_path / "go").touch()
        job = await ended(server, job_id)
        assert (job["status"], job["result"]["error"]) == ("interrupted", "Somebody has removed its directory.")
        assert (await ended(server, (await submit(server))["job_id"]))["status"] == "succeeded"
