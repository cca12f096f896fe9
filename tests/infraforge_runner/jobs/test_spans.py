"""The spans of jobs: their steps and phases, kills, restarts, and what scripts do not get."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from tests.async_tests import slow_async_test, wait_until
from tests.infraforge_runner.local_cloudformation import LocalAws, local_aws
from tests.infraforge_runner.process_helpers import (
    MAX_JOB_SECONDS,
    MODELS,
    WAIT_FOR_GO_FILE,
    find_supervisors,
    kill_supervisor,
    release_job,
)
from tests.infraforge_runner.sites import TOOLS, make_checkout, needs_cdk
from tests.jobs import post_json, submit, wait_for_job, wait_for_log_text, write_hyperpod_preset
from tests.processes import ROOT, running_process
from tests.running_server import write_presets
from tests.traces import CLIENT_SPAN, CLIENT_TRACE, TRACEPARENT, OtlpCollector, documented_outline

CDK_LINES = """
echo 'Loaded configuration from x'
echo 'small-stack: deploying... [1/1]'
echo 'small-stack | 1/2 | 7:08:02 PM | CREATE_COMPLETE | AWS::S3::Bucket | small-stack/B (B1)'
echo ' ✅  small-stack'
"""
COPY_ENVIRONMENT = f"""#!{sys.executable}
from pathlib import Path
Path("environment").write_bytes(Path("/proc/self/environ").read_bytes())
"""


@pytest.fixture(autouse=True)
def no_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not look for credentials in EC2's metadata, which takes seconds."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@slow_async_test
async def test_job_trace_has_request_job_and_step_spans(folder: Path) -> None:
    write_hyperpod_preset(folder / "presets", deploy=CDK_LINES, timeout=MAX_JOB_SECONDS)
    async with (
        OtlpCollector() as collector,
        running_process(folder, models=MODELS, environ=collector.environ) as server,
    ):
        body = {"dry_run": False}
        _, answer = await post_json(server, "/api/hyperpod/deploy", body, traceparent=TRACEPARENT)
        job = await wait_for_job(server, answer["job"]["job_id"])
        assert job["status"] == "succeeded"
        await collector.wait_until(lambda: collector.find_all("job deploy"))
        await collector.wait_until(lambda: collector.find_all("POST /api/hyperpod/deploy"))
        assert collector.services == {"forgeline"}
        assert collector.outline() == documented_outline(1)
        request, job_span = collector.find_one("POST /api/hyperpod/deploy"), collector.find_one("job deploy")
        steps = [collector.find_one(name) for name in ("queue", "render", "script", "read stack")]
        assert {span.trace for span in (request, job_span, *steps)} == {CLIENT_TRACE}
        assert (request.parent, job_span.parent) == (CLIENT_SPAN, request.id)
        assert {step.parent for step in steps} == {job_span.id}
        for before, after in pairwise(steps):
            assert (
                job_span.started_at
                <= before.started_at
                <= before.ended_at
                <= after.started_at
                <= after.ended_at
                <= job_span.ended_at
            )
        assert job_span.attributes == {
            "forgeline.job.id": job["job_id"],
            "forgeline.job.action": "deploy",
            "forgeline.job.preset": "small",
            "forgeline.job.dry_run": False,
            "forgeline.job.stack": "small-stack",
            "forgeline.job.status": "succeeded",
            "cloud.region": "us-east-1",
        }
        phases = [attributes["forgeline.job.phase"] for name, attributes in steps[2].events if name == "phase"]
        assert phases in (["synthesizing", "deploying", "done"], ["done"])  # one by one, or all in one read
        assert steps[2].attributes == {"process.exit.code": 0}


@needs_cdk
@pytest.mark.slow
@pytest.mark.timeout(240)  # Node is slow on a busy machine
def test_job_trace_has_phases_of_real_cdk_run(folder: Path) -> None:
    async def deploy(aws: LocalAws, checkout: Path) -> None:
        write_presets(folder / "presets", MODELS)
        shutil.copytree(ROOT / "presets" / "hyperpod", folder / "presets" / "hyperpod")
        tools = {"PATH": f"{TOOLS}:{os.environ['PATH']}", "HOME": str(folder)}
        async with OtlpCollector() as collector:
            environ = {**collector.environ, **aws.environment, **tools}
            async with running_process(folder, "--infraforge", str(checkout), models=MODELS, environ=environ) as server:
                job = await wait_for_job(server, (await submit(server, overrides={"region": aws.region}))["job_id"])
                assert job["status"] == "succeeded", job["result"]
                await collector.wait_until(lambda: collector.find_all("job deploy"))
            phases = [attributes["forgeline.job.phase"] for _, attributes in collector.find_one("script").events]
            assert phases == ["synthesizing", "deploying", "done"]
            assert collector.find_one("read stack").parent == collector.find_one("job deploy").id

    with local_aws() as aws:
        asyncio.run(deploy(aws, make_checkout(folder / "checkout")))


@slow_async_test
async def test_job_trace_of_dry_run_has_plan_and_failed_job_has_error(folder: Path) -> None:
    write_hyperpod_preset(folder / "presets", deploy="echo no; exit 3", timeout=MAX_JOB_SECONDS)
    async with (
        OtlpCollector() as collector,
        running_process(folder, models=MODELS, environ=collector.environ) as server,
    ):
        await wait_for_job(server, (await submit(server, dry_run=True))["job_id"])
        await wait_for_job(server, (await submit(server))["job_id"])
        await collector.wait_until(lambda: len(collector.find_all("job deploy")) == 2)
        dry, live = sorted(collector.find_all("job deploy"), key=lambda span: span.started_at)
        assert not dry.failed
        assert {span.name for span in collector.spans() if span.parent == dry.id} == {"queue", "plan"}
        assert (live.failed, live.attributes["error.type"]) == (True, "failed")
        script = collector.find_one("script")
        assert (script.failed, script.attributes["process.exit.code"]) == (True, 3)


@slow_async_test
async def test_job_trace_continues_after_supervisor_is_killed(folder: Path) -> None:
    write_hyperpod_preset(folder / "presets", deploy=WAIT_FOR_GO_FILE, timeout=MAX_JOB_SECONDS)
    async with (
        OtlpCollector() as collector,
        running_process(folder, models=MODELS, environ=collector.environ) as server,
    ):
        job_id = (await submit(server))["job_id"]
        await wait_for_log_text(server, job_id, "ready")
        await collector.wait_until(lambda: collector.find_all("render"))
        kill_supervisor(folder, job_id)
        assert (await wait_for_job(server, job_id))["status"] == "interrupted"
        await collector.wait_until(lambda: collector.find_all("job deploy"))
        job_span = collector.find_one("job deploy")
        assert (job_span.failed, job_span.attributes["forgeline.job.status"]) == (True, "interrupted")
        assert job_span.parent == collector.find_one("POST /api/hyperpod/deploy").id
        steps = {span.name for span in collector.spans() if span.parent == job_span.id}
        assert steps == {"queue", "render", "settle"}


@slow_async_test
async def test_job_trace_is_exported_after_server_stops(folder: Path) -> None:
    write_hyperpod_preset(folder / "presets", deploy=WAIT_FOR_GO_FILE, timeout=MAX_JOB_SECONDS)
    async with OtlpCollector() as collector:
        async with running_process(folder, models=MODELS, environ=collector.environ) as server:
            job_id = (await submit(server))["job_id"]
            await wait_for_log_text(server, job_id, "ready")
            await server.stop(signal.SIGTERM)
        release_job(folder, job_id)
        await collector.wait_until(lambda: collector.find_all("job deploy"))
        assert collector.find_one("job deploy").parent == collector.find_one("POST /api/hyperpod/deploy").id


@pytest.mark.slow
@slow_async_test
async def test_job_without_reachable_collector_is_not_delayed(folder: Path) -> None:
    write_hyperpod_preset(folder / "presets", deploy="true", timeout=MAX_JOB_SECONDS)
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    async with running_process(folder, models=MODELS, environ=environ) as server:
        job = await wait_for_job(server, (await submit(server))["job_id"])
        assert (job["status"], job["result"]["duration_seconds"] < 20) == ("succeeded", True)
        second = await wait_for_job(
            server, (await submit(server))["job_id"]
        )  # the first supervisor may still be exporting
        assert second["status"] == "succeeded"
        await wait_until(lambda: not find_supervisors(folder / "data"))


@slow_async_test
async def test_job_script_gets_no_otel_variables(folder: Path) -> None:
    write_hyperpod_preset(folder / "presets", deploy=COPY_ENVIRONMENT, timeout=MAX_JOB_SECONDS)
    async with OtlpCollector() as collector:
        environ = {**collector.environ, "OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret"}
        async with running_process(folder, models=MODELS, environ=environ) as server:
            _, answer = await post_json(server, "/api/hyperpod/deploy", {"dry_run": False}, traceparent=TRACEPARENT)
            job_id = answer["job"]["job_id"]
            assert (await wait_for_job(server, job_id))["status"] == "succeeded"
    directory = folder / "data" / "jobs" / job_id
    assert b"OTEL_" not in (environment := (directory / "work" / "environment").read_bytes())
    assert CLIENT_TRACE.encode() not in environment
    assert json.loads((directory / "spec.json").read_bytes())["trace"]["traceparent"].split("-")[1] == CLIENT_TRACE
