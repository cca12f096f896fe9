"""Clusters from end to end: Node's CDK against a local AWS, driven and followed over the product's own interfaces."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from pipeline.masking import MASK
from tests.infraforge_runner.local_cloudformation import SECRET, LocalAws, local_aws
from tests.infraforge_runner.sites import DeploySite, needs_cdk
from tests.jobs import follow_log, get_log, post_json, submit, wait_for_job, wait_for_log_text
from tests.processes import ServerProcess
from tests.sockets import Message, WebSocketClient, connect_websocket
from tests.upstream import Upstream, json_response

pytestmark = [needs_cdk, pytest.mark.timeout(240)]  # Node on a busy machine takes its time
REGION = "us-west-2"
SERVES = {"name": "my-qwen", "model": "Qwen/Qwen2.5-VL-7B", "base_url": "${outputs.ModelUrl}", "capabilities": ["text"]}
PHASES = ["starting", "synthesizing", "deploying", "done"]


def run_async(test: Callable[[DeploySite], Coroutine[Any, Any, None]]) -> Callable[[DeploySite], None]:
    """Run an async test without the deadline of other tests: the CDK may take longer."""

    @functools.wraps(test)
    def run(site: DeploySite) -> None:
        asyncio.run(test(site))

    return run


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAws]:
    with local_aws() as aws, pytest.MonkeyPatch.context() as environment:
        for name, value in aws.environment.items():
            environment.setenv(name, value)
        yield aws


@pytest.fixture
def site(aws: LocalAws, folder: Path) -> DeploySite:
    aws.reset()
    return DeploySite(aws, folder)


async def get_json(server: ServerProcess, path: str) -> Any:
    async with server.http.get(server.url + path) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def deploy(server: ServerProcess, **overrides: Any) -> Message:
    return await wait_for_job(server, (await submit(server, overrides={"region": REGION, **overrides}))["job_id"])


async def ask_models(server: ServerProcess, *models: str) -> list[str]:
    """The texts of these models' responses."""
    status, response = await post_json(server, "/api/multi-inference", {"text": "hi", "models": list(models)})
    assert status == 200
    return [result["response"]["content"][0]["text"] for result in response["results"]]


async def subscribe(websocket: WebSocketClient, *topics: str) -> Message:
    await websocket.send(op="subscribe", id="feed", topics=topics)
    snapshot = await websocket.next_event("feed")
    assert snapshot["type"] == "snapshot"
    return snapshot


async def read_until(websocket: WebSocketClient, **fields: Any) -> list[Message]:
    """The messages of the feed, up to the first with these fields."""
    messages = [await websocket.next_event("feed")]
    while not fields.items() <= messages[-1].items():
        messages.append(await websocket.next_event("feed"))
    return messages


async def read_until_finished(websocket: WebSocketClient, job_id: str) -> list[Message]:
    """The messages of the feed, up to the end of this job. A socket that nobody reads would be taken for dead."""
    messages = [await websocket.next_event("feed")]
    while not (messages[-1].get("job_id") == job_id and messages[-1]["finished_at"]):
        messages.append(await websocket.next_event("feed"))
    return messages


async def wait_for_model(server: ServerProcess, model: str) -> None:
    """Return when this model exists."""
    async with connect_websocket(server) as websocket:
        snapshot = await subscribe(websocket, "models")
        if model not in [known["name"] for known in snapshot["models"]]:
            await read_until(websocket, type="model", name=model)


@run_async
async def test_cluster_dry_run_deploy_inference_and_destroy(site: DeploySite) -> None:
    overrides = {"region": REGION, "cluster_tag": "demo", "availability_zone": "us-west-2c"}
    stack_name = "forgeline-small-demo"
    async with Upstream() as upstream, site.running() as server, connect_websocket(server) as websocket:
        upstream.response = json_response("from the cluster")
        site.write_preset(outputs={"ModelUrl": upstream.base_url}, serves=SERVES)
        await subscribe(websocket, "jobs", "models", "presets")
        await read_until(websocket, type="preset", name="small", change="added")

        dry_run_id = (await submit(server, dry_run=True, overrides=overrides))["job_id"]
        dry_run_job = (await read_until_finished(websocket, dry_run_id))[-1]
        check_plan(dry_run_job, (await get_log(server, dry_run_job["job_id"])).decode())
        assert await site.stack_status(stack_name) is None  # not even a change set of it was made

        site.aws.gate.allow(2)
        job_id = (await submit(server, overrides=overrides))["job_id"]
        await websocket.send(op="tail", id="log", job_id=job_id)
        steps = await read_until(websocket, job_id=job_id, progress={"done": 2, "total": 6})
        site.aws.gate.allow()
        steps += await read_until_finished(websocket, job_id)
        check_steps([step for step in steps if step["type"] == "job" and step["job_id"] == job_id])
        *log, job, _ = await websocket.read_until_complete("log")
        assert "".join(part["text"] for part in log) == (await get_log(server, job_id)).decode()
        assert (
            job["result"]["outputs"].items()
            >= {
                "ModelUrl": upstream.base_url,
                "HyperPodClusterNamehyperpod": stack_name,
            }.items()
        )

        await read_until(websocket, type="model", name="my-qwen", availability="available")
        assert await ask_models(server, "claude", "my-qwen") == ["hi", "from the cluster"]
        (stack,) = (await get_json(server, "/api/hyperpod/stacks"))["stacks"]
        assert stack == {
            "stack_name": stack_name,
            "region": REGION,
            "preset": "small",
            "state": "standing",
            "since": stack["since"],
            "job_id": job_id,
            "outputs": job["result"]["outputs"],
            "serves": SERVES["model"],
        }
        assert job["started_at"] < stack["since"] < job["finished_at"]

        site.write_preset(description="another one by now")
        await read_until(websocket, type="preset", name="small", change="changed")
        destroy = {"overrides": {"cluster_tag": "demo"}, "dry_run": False}  # the region is where it stands
        status, response = await post_json(server, "/api/hyperpod/destroy", {**destroy, "confirm": "forgeline-small"})
        assert (status, f'"{stack_name}"' in response["error"]) == (400, True)
        destroy_id = (await submit(server, "destroy", **destroy, confirm=stack_name))["job_id"]
        destroy_job = (await read_until_finished(websocket, destroy_id))[-1]
        assert (destroy_job["status"], destroy_job["phase"], destroy_job["region"]) == ("succeeded", "done", REGION)
        assert read_work_config(site, destroy_job) == read_work_config(site, job)
        await read_until(websocket, type="model", name="my-qwen", availability="removed")
        assert (await post_json(server, "/api/models/my-qwen", {"text": "hi"}))[0] == 404
        assert await get_json(server, "/api/hyperpod/stacks") == {"status": "success", "stacks": []}
        assert await site.stack_status(stack_name) is None


def check_plan(job: Message, log: str) -> None:
    """Check the plan of a dry run that could check everything."""
    assert (job["status"], job["result"]["returncode"]) == ("succeeded", 0), log
    plan = job["result"]["plan"]
    assert plan["config"]["forges"]["hyperpod"]["defaults"]["azIndex"] == 3
    assert "+ global.stackName: forgeline-small-demo" in plan["diff"]
    assert "HyperPod cluster forgeline-small-demo" in plan["names"]
    assert plan["command"].endswith("/infraforge_runner/infraforge/scripts/deploy.sh")
    assert (plan["environment"]["AVAILABILITY_ZONE"], plan["environment"]["CLUSTER_TAG"]) == ("us-west-2c", "demo")
    assert plan["environment"]["AWS_SECRET_ACCESS_KEY"] == MASK.decode()
    assert SECRET not in json.dumps(job)
    assert len(plan["unchecked"]) == 3
    assert "The stack forgeline-small-demo is not there, in us-west-2.\n" in log
    assert "[+] AWS::IAM::Role KarpenterNodeRole" in log  # by `cdk diff`


def check_steps(steps: list[Message]) -> None:
    """Check the deploy's phases and progress on the feed."""
    phases = list(dict.fromkeys(step["phase"] for step in steps if step["status"] == "running"))
    assert phases == [phase for phase in PHASES if phase in phases]  # a short one may have gone by
    assert "deploying" in phases
    counts = [step["progress"]["done"] for step in steps if step["progress"]]
    assert (counts[-1], counts) == (6, sorted(counts))
    assert (steps[-1]["phase"], steps[-1]["progress"]) == ("done", {"done": 6, "total": 6})


def read_work_config(site: DeploySite, job: Message) -> Any:
    """The config.json that InfraForge has read."""
    return json.loads((site.folder / "data" / "jobs" / job["job_id"] / "work" / "config.json").read_text())


@run_async
async def test_server_kill_during_deploy_changes_nothing(site: DeploySite) -> None:
    async with Upstream() as upstream:
        upstream.response = json_response("from a cluster")
        site.write_preset(outputs={"ModelUrl": upstream.base_url}, serves=SERVES)
        async with site.running() as server:
            undisturbed = await deploy(server, cluster_tag="calm")
            undisturbed_log = await get_log(server, undisturbed["job_id"])
            site.aws.gate.allow(2)
            job_id = (await submit(server, overrides={"region": REGION, "cluster_tag": "wild"}))["job_id"]
            text, offset = await read_log_until(server, job_id, "| 2/6 |")
            await server.stop(signal.SIGKILL)
        site.aws.gate.allow()
        async with site.running() as server:
            rest = [event async for event in follow_log(server, job_id, offset)]
            text += "".join(event["text"] for event in rest if event["type"] == "log")
            interrupted = next(event for event in rest if event["type"] == "job")
            interrupted_log = await get_log(server, job_id)
            assert text.encode() == interrupted_log
            assert drop_varying_fields(interrupted, "wild") == drop_varying_fields(undisturbed, "calm")
            assert cloudformation_events(interrupted_log, "wild") == cloudformation_events(undisturbed_log, "calm")
            await wait_for_model(server, "my-qwen-forgeline-small-wild")
            assert await ask_models(server, "my-qwen", "my-qwen-forgeline-small-wild") == ["from a cluster"] * 2
            stacks = (await get_json(server, "/api/hyperpod/stacks"))["stacks"]
            assert [(stack["stack_name"], stack["state"]) for stack in stacks] == [
                ("forgeline-small-calm", "standing"),
                ("forgeline-small-wild", "standing"),
            ]
        for tag in ("calm", "wild"):
            assert await site.stack_status(f"forgeline-small-{tag}") == "CREATE_COMPLETE"


async def read_log_until(server: ServerProcess, job_id: str, text: str) -> tuple[str, int]:
    """The log up to this text, and the offset to go on from."""
    log = ""
    async with aclosing(follow_log(server, job_id)) as events:
        async for event in events:
            log += event.get("text", "")
            if text in log:
                return log, event["next_offset"]
    raise AssertionError(log)


def drop_varying_fields(job: Message, tag: str) -> Any:
    """The job without the fields that differ between two deploys, its tag replaced."""
    fields = {key: value for key, value in job.items() if key != "job_id" and not key.endswith("_at")}
    fields["result"] = {key: value for key, value in job["result"].items() if key != "duration_seconds"}
    return json.loads(json.dumps(fields).replace(tag, "TAG"))


def cloudformation_events(log: bytes, tag: str) -> list[str]:
    """CloudFormation's events in the CDK's output, sorted, without times and counts, which vary."""
    lines = (line for line in log.decode().splitlines() if " | AWS::" in line)
    return sorted(re.sub(r"\| *\d+/\d+ \| [^|]* \|", "|", line.replace(tag, "TAG")) for line in lines)


@run_async
async def test_failed_deploy_names_resource_and_can_be_destroyed(site: DeploySite) -> None:
    site.aws.create_role(f"KarpenterNodeRole-small-late-{REGION}")
    site.write_preset(outputs={"ModelUrl": "http://127.0.0.1:9/v1"}, serves=SERVES)
    async with site.running() as server:
        job = await deploy(server, cluster_tag="late")
        assert (job["status"], job["phase"], job["result"]["returncode"]) == ("failed", "failed", 1)
        assert re.fullmatch(
            r"The script ended with exit status 1\. KarpenterNodeRole \(AWS::IAM::Role\): .* already exists\.",
            job["result"]["error"],
        )
        assert job["result"]["outputs"] == {}
        (stack,) = (await get_json(server, "/api/hyperpod/stacks"))["stacks"]
        assert (stack["state"], stack["since"]) == ("uncertain", None)
        assert [model["name"] for model in (await get_json(server, "/api/models"))["models"]] == ["claude"]
        overrides = {"region": REGION, "cluster_tag": "late"}
        destroy_job = await submit(server, "destroy", overrides=overrides, confirm="forgeline-small-late")
        assert (await wait_for_job(server, destroy_job["job_id"]))["status"] == "succeeded"
        assert (await get_json(server, "/api/hyperpod/stacks"))["stacks"] == []
    assert await site.stack_status("forgeline-small-late") is None


@run_async
async def test_config_rejected_by_infraforge_fails_with_its_message_and_no_stack(site: DeploySite) -> None:
    site.write_preset()
    preset = site.folder / "presets" / "hyperpod" / "small.yaml"
    preset.write_text(preset.read_text().replace("  - hyperpod\n", "  - hyperpod\n  - nothing\n", 1))
    async with site.running() as server:
        job = await deploy(server)
        assert (job["status"], job["result"]["error"]) == (
            "failed",
            "The script ended with exit status 1. Error creating forge nothing: forge instance nothing not found.",
        )
        assert (await get_json(server, "/api/hyperpod/stacks"))["stacks"] == []


@pytest.mark.slow
@run_async
async def test_cancel_reports_ongoing_cloudformation_operation(site: DeploySite) -> None:
    site.aws.gate.block()
    site.write_preset()
    async with site.running() as server:
        job_id = (await submit(server, overrides={"region": REGION}))["job_id"]
        await wait_for_log_text(server, job_id, "CREATE_IN_PROGRESS")
        assert (await post_json(server, f"/api/hyperpod/jobs/{job_id}/cancel"))[0] == 202
        job = await wait_for_job(server, job_id)
        assert job["status"] == "cancelled"
        assert job["result"]["error"].startswith(
            "It was cancelled. CloudFormation is still at work on the stack forgeline-small in us-west-2 "
            "(CREATE_IN_PROGRESS)"
        )
        (stack,) = (await get_json(server, "/api/hyperpod/stacks"))["stacks"]
        assert (stack["stack_name"], stack["state"]) == ("forgeline-small", "uncertain")
