"""A job's trace: from the request to the end of its script, exported by its own supervisor."""

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

from tests.aio import comes_true, unhurried
from tests.infraforge_runner.cloudformation import LocalAws, local_aws
from tests.infraforge_runner.living import MODELS, SECONDS, UNTIL_TOLD, kill_supervisor, let_go, supervisors
from tests.infraforge_runner.sites import TOOLS, make_checkout, needs_cdk
from tests.jobs import ended, post, said, submit, write_hyperpod
from tests.processes import ROOT, running
from tests.serving import write_presets
from tests.traces import CLIENT_SPAN, CLIENT_TRACE, TRACEPARENT, Collector, picture

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
    """Nobody is asked for credentials, which takes its time."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@unhurried
async def test_a_jobs_trace_runs_from_its_request_through_its_steps(folder: Path) -> None:
    write_hyperpod(folder / "presets", deploy=CDK_LINES, timeout=SECONDS)
    async with Collector() as collector, running(folder, models=MODELS, environ=collector.environ) as server:
        body = {"dry_run": False}
        _, answer = await post(server, "/api/hyperpod/deploy", body, traceparent=TRACEPARENT)
        job = await ended(server, answer["job"]["job_id"])
        assert job["status"] == "succeeded"
        await collector.until(lambda: collector.named("job deploy"))
        await collector.until(lambda: collector.named("POST /api/hyperpod/deploy"))
        assert collector.services == {"forgeline"}
        assert collector.outline() == picture(1)
        request, whole = collector.one("POST /api/hyperpod/deploy"), collector.one("job deploy")
        steps = [collector.one(name) for name in ("queue", "render", "script", "read stack")]
        assert {span.trace for span in (request, whole, *steps)} == {CLIENT_TRACE}
        assert (request.parent, whole.parent) == (CLIENT_SPAN, request.id)
        assert {step.parent for step in steps} == {whole.id}
        for before, after in pairwise(steps):
            assert whole.began <= before.began <= before.ended <= after.began <= after.ended <= whole.ended
        assert whole.attributes == {
            "forgeline.job.id": job["job_id"],
            "forgeline.job.action": "deploy",
            "forgeline.job.preset": "small",
            "forgeline.job.dry_run": False,
            "forgeline.job.stack": "small-stack",
            "forgeline.job.status": "succeeded",
            "cloud.region": "us-east-1",
        }
        phases = [attributes["forgeline.job.phase"] for name, attributes in steps[2].events if name == "phase"]
        assert phases in (["synthesizing", "deploying", "done"], ["done"])  # as its lines came: one by one, or at once
        assert steps[2].attributes == {"process.exit.code": 0}


@needs_cdk
@pytest.mark.slow
@pytest.mark.timeout(240)  # Node on a busy machine takes its time
def test_a_live_jobs_trace_has_the_phases_of_the_cdks_run(folder: Path) -> None:
    async def deploy(aws: LocalAws, checkout: Path) -> None:
        write_presets(folder / "presets", MODELS)
        shutil.copytree(ROOT / "presets" / "hyperpod", folder / "presets" / "hyperpod")
        tools = {"PATH": f"{TOOLS}:{os.environ['PATH']}", "HOME": str(folder)}
        async with Collector() as collector:
            environ = {**collector.environ, **aws.environment, **tools}
            async with running(folder, "--infraforge", str(checkout), models=MODELS, environ=environ) as server:
                job = await ended(server, (await submit(server, overrides={"region": aws.region}))["job_id"])
                assert job["status"] == "succeeded", job["result"]
                await collector.until(lambda: collector.named("job deploy"))
            phases = [attributes["forgeline.job.phase"] for _, attributes in collector.one("script").events]
            assert phases == ["synthesizing", "deploying", "done"]
            assert collector.one("read stack").parent == collector.one("job deploy").id

    with local_aws() as aws:
        asyncio.run(deploy(aws, make_checkout(folder / "checkout")))


@unhurried
async def test_a_dry_run_has_a_plan_and_a_job_that_fails_says_so(folder: Path) -> None:
    write_hyperpod(folder / "presets", deploy="echo no; exit 3", timeout=SECONDS)
    async with Collector() as collector, running(folder, models=MODELS, environ=collector.environ) as server:
        await ended(server, (await submit(server, dry_run=True))["job_id"])
        await ended(server, (await submit(server))["job_id"])
        await collector.until(lambda: len(collector.named("job deploy")) == 2)
        dry, live = sorted(collector.named("job deploy"), key=lambda span: span.began)
        assert not dry.failed
        assert {span.name for span in collector.told() if span.parent == dry.id} == {"queue", "plan"}
        assert (live.failed, live.attributes["error.type"]) == (True, "failed")
        script = collector.one("script")
        assert (script.failed, script.attributes["process.exit.code"]) == (True, 3)


@unhurried
async def test_the_successor_of_a_killed_supervisor_goes_on_with_its_trace(folder: Path) -> None:
    write_hyperpod(folder / "presets", deploy=UNTIL_TOLD, timeout=SECONDS)
    async with Collector() as collector, running(folder, models=MODELS, environ=collector.environ) as server:
        job_id = (await submit(server))["job_id"]
        await said(server, job_id, "ready")
        await collector.until(lambda: collector.named("render"))
        kill_supervisor(folder, job_id)
        assert (await ended(server, job_id))["status"] == "interrupted"
        await collector.until(lambda: collector.named("job deploy"))
        whole = collector.one("job deploy")
        assert (whole.failed, whole.attributes["forgeline.job.status"]) == (True, "interrupted")
        assert whole.parent == collector.one("POST /api/hyperpod/deploy").id
        of_both = {span.name for span in collector.told() if span.parent == whole.id}
        assert of_both == {"queue", "render", "settle"}


@unhurried
async def test_a_job_outlives_its_server_and_tells_its_trace_all_the_same(folder: Path) -> None:
    write_hyperpod(folder / "presets", deploy=UNTIL_TOLD, timeout=SECONDS)
    async with Collector() as collector:
        async with running(folder, models=MODELS, environ=collector.environ) as server:
            job_id = (await submit(server))["job_id"]
            await said(server, job_id, "ready")
            await server.stopped(signal.SIGTERM)
        let_go(folder, job_id)
        await collector.until(lambda: collector.named("job deploy"))
        assert collector.one("job deploy").parent == collector.one("POST /api/hyperpod/deploy").id


@pytest.mark.slow
@unhurried
async def test_a_collector_that_is_not_there_holds_up_no_job(folder: Path) -> None:
    write_hyperpod(folder / "presets", deploy="true", timeout=SECONDS)
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    async with running(folder, models=MODELS, environ=environ) as server:
        job = await ended(server, (await submit(server))["job_id"])
        assert (job["status"], job["result"]["duration_seconds"] < 20) == ("succeeded", True)
        again = await ended(server, (await submit(server))["job_id"])  # its stack is free, though that one still tries
        assert again["status"] == "succeeded"
        await comes_true(lambda: not supervisors(folder / "data"))


@unhurried
async def test_a_script_gets_nothing_of_it(folder: Path) -> None:
    write_hyperpod(folder / "presets", deploy=COPY_ENVIRONMENT, timeout=SECONDS)
    async with Collector() as collector:
        environ = {**collector.environ, "OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret"}
        async with running(folder, models=MODELS, environ=environ) as server:
            _, answer = await post(server, "/api/hyperpod/deploy", {"dry_run": False}, traceparent=TRACEPARENT)
            job_id = answer["job"]["job_id"]
            assert (await ended(server, job_id))["status"] == "succeeded"
    directory = folder / "data" / "jobs" / job_id
    assert b"OTEL_" not in (found := (directory / "work" / "environment").read_bytes())
    assert CLIENT_TRACE.encode() not in found
    assert json.loads((directory / "spec.json").read_bytes())["trace"]["traceparent"].split("-")[1] == CLIENT_TRACE
