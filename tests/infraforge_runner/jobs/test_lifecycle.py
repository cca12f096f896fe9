"""A job from its submission to its end: how it is stopped, how its stack is locked, and what reports its changes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.async_tests import slow_async_test, wait_until
from tests.infraforge_runner.process_helpers import MAX_JOB_SECONDS, MODELS, WAIT_FOR_GO_FILE, release_job
from tests.jobs import (
    follow_log,
    get_job,
    get_log,
    post_json,
    submit,
    wait_for_job,
    wait_for_log_text,
    write_hyperpod_preset,
)
from tests.processes import run_to_end, running_process
from tests.running_server import running_server
from tests.server.observability.scraping import scrape
from tests.sockets import connect_websocket

CREDENTIALS = '{"Version": 1, "AccessKeyId": "AKIAIOSFODNN7EXAMPLE", "SecretAccessKey": "made-up"}'


# --- stopping -----------------------------------------------------------------------------


@slow_async_test
async def test_cancel_sends_sigterm_once_to_each_process_and_waits(tmp_path: Path) -> None:
    deploy = """
        setsid bash -c 'trap "echo child asked; exit" TERM; echo ready; while :; do sleep 0.02; done' &
        trap 'echo script asked; n=$((n + 1))' TERM
        until [ "$n" ]; do sleep 0.02; done
        for rest in $(seq 20); do sleep 0.02; done
        echo cleaned up after $n
    """
    write_hyperpod_preset(tmp_path / "presets", deploy=deploy, timeout=MAX_JOB_SECONDS)
    async with running_server(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        await wait_for_log_text(server, job_id, "ready")
        for _ in range(2):
            status, answer = await post_json(server, f"/api/hyperpod/jobs/{job_id}/cancel")
            assert (status, answer["job"]["job_id"]) == (202, job_id)
        job = await wait_for_job(server, job_id)
        assert job["status"] == "cancelled"
        assert job["result"]["error"].startswith("It was cancelled.")
        lines = (await get_log(server, job_id)).decode().splitlines()
        assert lines[:2] == ["ready", "[forgeline] It was cancelled. What it has started is ended now."]
        by_script = [line for line in lines[2:] if line != "Terminated"]  # printed by bash about its sleep
        assert sorted(by_script) == ["child asked", "cleaned up after 1", "script asked"]


@slow_async_test
async def test_credential_process_of_sdk_is_no_process_of_the_job(tmp_path: Path) -> None:
    helper, config = tmp_path / "helper", tmp_path / "config"
    helper.write_text(f"#!/bin/sh\necho asked >> {tmp_path}/asked\nsleep 0.3\necho '{CREDENTIALS}'\n")
    helper.chmod(0o700)
    config.write_text(f"[default]\ncredential_process = {helper}\n")
    deploy = f"until [ -e {tmp_path}/asked ]; do sleep 0.02; done; exit 1"
    write_hyperpod_preset(tmp_path / "presets", deploy=deploy, timeout=MAX_JOB_SECONDS)
    environ = {
        "AWS_CONFIG_FILE": str(config),
        "AWS_PROFILE": "default",
        "AWS_ACCESS_KEY_ID": "",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    }
    async with running_process(tmp_path, models=MODELS, environ=environ) as server:
        job = await wait_for_job(server, (await submit(server))["job_id"])
        assert job["result"]["error"] == "The script ended with exit status 1."
        supervisor_log = (tmp_path / "data" / "jobs" / job["job_id"] / "supervisor.log").read_text()
        assert "Unknown child process" not in supervisor_log
        assert "stack_failures_unavailable" in supervisor_log  # it found credentials, and so it queried AWS


@slow_async_test
async def test_huge_line_is_whole_and_does_not_delay_the_end(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", deploy="head -c 5000000 /dev/zero | tr '\\0' x; printf end")
    async with running_server(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        text = "".join([event.get("text", "") async for event in follow_log(server, job_id)])
        assert text == "x" * 5_000_000 + "end"
        assert await get_log(server, job_id) == text.encode()


# --- the stack -------------------------------------------------------------------------------------


@slow_async_test
async def test_concurrent_deploys_of_one_stack_run_one_and_lock_others(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", deploy=WAIT_FOR_GO_FILE, destroy="true", timeout=MAX_JOB_SECONDS)
    write_hyperpod_preset(tmp_path / "presets", "elsewhere", deploy="true", region="eu-west-1", timeout=MAX_JOB_SECONDS)
    body = {"preset": "small", "dry_run": False}
    async with running_server(tmp_path, models=MODELS) as server:
        answers = await asyncio.gather(*(post_json(server, "/api/hyperpod/deploy", body) for _ in range(10)))
        (first,) = [answer["job"]["job_id"] for status, answer in answers if status == 202]
        refused = [answer for status, answer in answers if status == 409]
        assert len(refused) == 9
        assert all(answer["code"] == "stack_locked" and first in answer["error"] for answer in refused)
        status, answer = await post_json(server, "/api/hyperpod/destroy", {**body, "confirm": "small-stack"})
        assert (status, answer["code"]) == (409, "stack_locked")
        await wait_for_job(server, (await submit(server, preset="elsewhere"))["job_id"])
        await wait_for_log_text(server, first, "ready")
        release_job(tmp_path, first)
        await wait_for_job(server, first)
        second = (await submit(server))["job_id"]
        await post_json(server, f"/api/hyperpod/jobs/{second}/cancel")
        await wait_for_job(server, second)
        await submit(server, "destroy", confirm="small-stack")


# --- events and metrics -------------------------------------------------------------------------------


@slow_async_test
async def test_feed_and_log_report_adopted_jobs_and_status_changes(folder: Path) -> None:
    for name in ("small", "large"):
        write_hyperpod_preset(folder / "presets", name, deploy=WAIT_FOR_GO_FILE, timeout=MAX_JOB_SECONDS)
    async with running_process(folder, "--jobs-at-once", "1", models=MODELS) as server:
        first = (await submit(server, preset="small"))["job_id"]
        second = (await submit(server, preset="large"))["job_id"]
        await wait_for_log_text(server, first, "ready")
        await server.stop()
    async with (
        running_process(folder, "--jobs-at-once", "1", models=MODELS) as server,
        connect_websocket(server) as client,
    ):
        await client.send(op="subscribe", id="f", topics=["jobs"])
        snapshot = await client.next_event("f")
        assert [(job["job_id"], job["status"]) for job in snapshot["jobs"]] == [(second, "queued"), (first, "running")]
        states: dict[str, list[str]] = {first: [], second: []}
        for job_id in (first, second):
            await wait_for_log_text(server, job_id, "ready")
            release_job(folder, job_id)
        while "succeeded" not in states[second]:
            message = await client.next_event("f")
            states[message["job_id"]].append(message["status"])
        assert list(dict.fromkeys(states[first])) == ["succeeded"]
        assert list(dict.fromkeys(states[second])) == ["running", "succeeded"]
        ended = (await server.stop()).err
    events = [json.loads(line) for line in ended.splitlines()]
    assert logged_status_changes(events, first) == [("job_adopted", "running"), ("job_status_changed", "succeeded")]
    assert logged_status_changes(events, second) == [
        ("job_adopted", "queued"),
        ("job_status_changed", "running"),
        ("job_status_changed", "succeeded"),
    ]


def logged_status_changes(events: list[dict[str, Any]], job_id: str) -> list[tuple[str, str]]:
    """The events and states of a job in the server's log."""
    return [(event["event"], event["status"]) for event in events if event.get("job_id") == job_id]


@slow_async_test
async def test_metrics_count_jobs_durations_and_followers(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", "long", deploy=WAIT_FOR_GO_FILE, timeout=MAX_JOB_SECONDS)
    write_hyperpod_preset(tmp_path / "presets", "waits", deploy="true", timeout=MAX_JOB_SECONDS)
    async with running_server(tmp_path, "--jobs-at-once", "1", models=MODELS) as server:
        first = (await submit(server, preset="long"))["job_id"]
        second = (await submit(server, preset="waits"))["job_id"]
        follower = asyncio.create_task(wait_for_job(server, first))
        await wait_for_log_text(server, first, "ready")
        await wait_until(lambda: server.services.jobs.log_reader_count == 1)
        while (await get_job(server, first))["status"] != "running":
            pass
        numbers = await scrape(server)
        assert numbers.by_label("jobs", "status") == {"running": 1, "queued": 1}
        assert numbers("log_followers") == 1
        await post_json(server, f"/api/hyperpod/jobs/{second}/cancel")
        release_job(tmp_path, first)
        await follower
        await wait_until(lambda: server.services.jobs.log_reader_count == 0)
        numbers = await scrape(server)
        assert numbers.by_label("jobs", "status") == {"succeeded": 1, "cancelled": 1}
        assert numbers("log_followers") == 0
        # A job that never started has no duration.
        assert numbers.by_label("job_duration_seconds_count", "status") == {"succeeded": 1}
        assert numbers("job_duration_seconds_sum", action="deploy") > 0


# --- unusable folders ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["below a file", "a file"])
@slow_async_test
async def test_unusable_data_folder_exits_2_with_error(tmp_path: Path, kind: str) -> None:
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "pipeline.yaml").write_text("stages: [decode_frames, invoke, normalize_envelope]\n")
    (tmp_path / "file").touch()
    data = tmp_path / "file" / ("below" if kind == "below a file" else "")
    ended = await run_to_end(tmp_path, "--data", os.fspath(data))
    assert (ended.code, ended.out) == (2, "")
    assert f"--data {data} can't be used: " in ended.err
    assert "Traceback" not in ended.err


@slow_async_test
async def test_removed_directory_interrupts_job_after_its_script(
    tmp_path: Path,
) -> None:
    deploy = f"echo ready; until [ -e {tmp_path}/go ]; do sleep 0.05; done"
    write_hyperpod_preset(tmp_path / "presets", deploy=deploy, timeout=MAX_JOB_SECONDS)
    async with running_server(tmp_path, models=MODELS) as server:
        job_id = (await submit(server))["job_id"]
        await wait_for_log_text(server, job_id, "ready")
        shutil.rmtree(tmp_path / "data" / "jobs" / job_id)
        status, answer = await post_json(server, "/api/hyperpod/deploy", {"dry_run": False})
        assert (status, answer["code"]) == (409, "stack_locked")
        (tmp_path / "go").touch()
        job = await wait_for_job(server, job_id)
        assert (job["status"], job["result"]["error"]) == ("interrupted", "Somebody has removed its directory.")
        assert (await wait_for_job(server, (await submit(server))["job_id"]))["status"] == "succeeded"
