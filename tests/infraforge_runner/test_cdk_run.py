"""Clusters, the whole way: Node's CDK against a local AWS, driven and followed through the product's own doors."""

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

from infraforge_runner.plan import MASK
from tests.infraforge_runner.cloudformation import SECRET, LocalAws, local_aws
from tests.infraforge_runner.sites import Site, needs_cdk
from tests.jobs import ended, follow, log_of, post, said, submit
from tests.processes import Process
from tests.sockets import Message, Talk, talking
from tests.upstream import Upstream, whole

pytestmark = [needs_cdk, pytest.mark.timeout(240)]  # Node on a busy machine takes its time
REGION = "us-west-2"
SERVES = {"name": "my-qwen", "model": "Qwen/Qwen2.5-VL-7B", "base_url": "${outputs.ModelUrl}", "capabilities": ["text"]}
STEPS = ["starting", "synthesizing", "deploying", "done"]


def in_its_time(test: Callable[[Site], Coroutine[Any, Any, None]]) -> Callable[[Site], None]:
    """Makes an async test one that pytest can call; the CDK may take longer than other tests may."""

    @functools.wraps(test)
    def run(site: Site) -> None:
        asyncio.run(test(site))

    return run


@pytest.fixture(scope="module")
def aws() -> Iterator[LocalAws]:
    with local_aws() as aws, pytest.MonkeyPatch.context() as environment:
        for name, value in aws.environment.items():
            environment.setenv(name, value)
        yield aws


@pytest.fixture
def site(aws: LocalAws, folder: Path) -> Site:
    aws.empty()
    return Site(aws, folder)


async def get(server: Process, path: str) -> Any:
    async with server.http.get(server.url + path) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def deploy(server: Process, **overrides: Any) -> Message:
    return await ended(server, (await submit(server, overrides={"region": REGION, **overrides}))["job_id"])


async def answers(server: Process, *models: str) -> list[str]:
    """What these models say, side by side."""
    status, told = await post(server, "/api/multi-inference", {"text": "hi", "models": list(models)})
    assert status == 200
    return [one["response"]["content"][0]["text"] for one in told["results"]]


async def subscribe(talk: Talk, *topics: str) -> Message:
    await talk.say(op="subscribe", id="feed", topics=topics)
    snapshot = await talk.next("feed")
    assert snapshot["type"] == "snapshot"
    return snapshot


async def told(talk: Talk, **fields: Any) -> list[Message]:
    """What the feed tells, up to the first message that says this."""
    messages = [await talk.next("feed")]
    while not fields.items() <= messages[-1].items():
        messages.append(await talk.next("feed"))
    return messages


async def finished(talk: Talk, job_id: str) -> list[Message]:
    """What the feed tells, up to the end of this job. A socket that nobody reads would be taken for dead."""
    messages = [await talk.next("feed")]
    while not (messages[-1].get("job_id") == job_id and messages[-1]["finished_at"]):
        messages.append(await talk.next("feed"))
    return messages


async def is_served(server: Process, model: str) -> None:
    """Returns when there is this model."""
    async with talking(server) as talk:
        snapshot = await subscribe(talk, "models")
        if model not in [one["name"] for one in snapshot["models"]]:
            await told(talk, type="model", name=model)


@in_its_time
async def test_a_cluster_is_planned_deployed_followed_asked_and_taken_down(site: Site) -> None:
    overrides = {"region": REGION, "cluster_tag": "demo", "availability_zone": "us-west-2c"}
    stack_name = "forgeline-small-demo"
    async with Upstream() as upstream, site.running() as server, talking(server) as talk:
        upstream.answer = whole("from the cluster")
        site.write_preset(outputs={"ModelUrl": upstream.base_url}, serves=SERVES)
        await subscribe(talk, "jobs", "models", "presets")
        await told(talk, type="preset", name="small", change="added")

        dry_id = (await submit(server, dry_run=True, overrides=overrides))["job_id"]
        dry = (await finished(talk, dry_id))[-1]
        check_plan(dry, (await log_of(server, dry["job_id"])).decode())
        assert await site.stack_status(stack_name) is None  # not even a change set of it was made

        site.aws.gate.open(2)
        job_id = (await submit(server, overrides=overrides))["job_id"]
        await talk.say(op="tail", id="log", job_id=job_id)
        steps = await told(talk, job_id=job_id, progress={"done": 2, "total": 6})
        site.aws.gate.open()
        steps += await finished(talk, job_id)
        check_steps([step for step in steps if step["type"] == "job" and step["job_id"] == job_id])
        *log, job, _ = await talk.whole("log")
        assert "".join(part["text"] for part in log) == (await log_of(server, job_id)).decode()
        assert (
            job["result"]["outputs"].items()
            >= {
                "ModelUrl": upstream.base_url,
                "HyperPodClusterNamehyperpod": stack_name,
            }.items()
        )

        await told(talk, type="model", name="my-qwen", availability="available")
        assert await answers(server, "claude", "my-qwen") == ["hi", "from the cluster"]
        (standing,) = (await get(server, "/api/hyperpod/stacks"))["stacks"]
        assert standing == {
            "stack_name": stack_name,
            "region": REGION,
            "preset": "small",
            "state": "standing",
            "since": standing["since"],
            "job_id": job_id,
            "outputs": job["result"]["outputs"],
            "serves": SERVES["model"],
        }
        assert job["started_at"] < standing["since"] < job["finished_at"]

        site.write_preset(description="another one by now")
        await told(talk, type="preset", name="small", change="changed")
        destroy = {"overrides": {"cluster_tag": "demo"}, "dry_run": False}  # the region is where it stands
        status, refused = await post(server, "/api/hyperpod/destroy", {**destroy, "confirm": "forgeline-small"})
        assert (status, f'"{stack_name}"' in refused["error"]) == (400, True)
        gone_id = (await submit(server, "destroy", **destroy, confirm=stack_name))["job_id"]
        gone = (await finished(talk, gone_id))[-1]
        assert (gone["status"], gone["phase"], gone["region"]) == ("succeeded", "done", REGION)
        assert work_config(site, gone) == work_config(site, job)
        await told(talk, type="model", name="my-qwen", availability="removed")
        assert (await post(server, "/api/models/my-qwen", {"text": "hi"}))[0] == 404
        assert await get(server, "/api/hyperpod/stacks") == {"status": "success", "stacks": []}
        assert await site.stack_status(stack_name) is None


def check_plan(job: Message, log: str) -> None:
    """Of a dry run that could check all there is to check."""
    assert (job["status"], job["result"]["returncode"]) == ("succeeded", 0), log
    plan = job["result"]["plan"]
    assert plan["config"]["forges"]["hyperpod"]["defaults"]["azIndex"] == 3
    assert "+ global.stackName: forgeline-small-demo" in plan["diff"]
    assert "HyperPod cluster forgeline-small-demo" in plan["names"]
    assert plan["command"].endswith("/infraforge_runner/scripts/deploy.sh")
    assert (plan["environment"]["AVAILABILITY_ZONE"], plan["environment"]["CLUSTER_TAG"]) == ("us-west-2c", "demo")
    assert plan["environment"]["AWS_SECRET_ACCESS_KEY"] == MASK
    assert SECRET not in json.dumps(job)
    assert len(plan["unchecked"]) == 3
    assert "The stack forgeline-small-demo is not there, in us-west-2.\n" in log
    assert "[+] AWS::IAM::Role KarpenterNodeRole" in log  # by `cdk diff`


def check_steps(steps: list[Message]) -> None:
    """That the feed showed the deploy moving on."""
    phases = list(dict.fromkeys(step["phase"] for step in steps if step["status"] == "running"))
    assert phases == [phase for phase in STEPS if phase in phases]  # a short one may have gone by
    assert "deploying" in phases
    done = [step["progress"]["done"] for step in steps if step["progress"]]
    assert (done[-1], done) == (6, sorted(done))
    assert (steps[-1]["phase"], steps[-1]["progress"]) == ("done", {"done": 6, "total": 6})


def work_config(site: Site, job: Message) -> Any:
    """What InfraForge read."""
    return json.loads((site.folder / "data" / "jobs" / job["job_id"] / "work" / "config.json").read_text())


@in_its_time
async def test_a_server_that_is_killed_in_the_middle_changes_nothing_and_two_clusters_stand(site: Site) -> None:
    async with Upstream() as upstream:
        upstream.answer = whole("from a cluster")
        site.write_preset(outputs={"ModelUrl": upstream.base_url}, serves=SERVES)
        async with site.running() as server:
            calm = await deploy(server, cluster_tag="calm")
            calm_log = await log_of(server, calm["job_id"])
            site.aws.gate.open(2)
            job_id = (await submit(server, overrides={"region": REGION, "cluster_tag": "wild"}))["job_id"]
            seen, offset = await read_to(server, job_id, "| 2/6 |")
            await server.stopped(signal.SIGKILL)
        site.aws.gate.open()
        async with site.running() as server:
            rest = [event async for event in follow(server, job_id, offset)]
            seen += "".join(event["text"] for event in rest if event["type"] == "log")
            wild = next(event for event in rest if event["type"] == "job")
            wild_log = await log_of(server, job_id)
            assert seen.encode() == wild_log
            assert essence_of(wild, "wild") == essence_of(calm, "calm")
            assert events_in(wild_log, "wild") == events_in(calm_log, "calm")
            await is_served(server, "my-qwen-forgeline-small-wild")
            assert await answers(server, "my-qwen", "my-qwen-forgeline-small-wild") == ["from a cluster"] * 2
            stacks = (await get(server, "/api/hyperpod/stacks"))["stacks"]
            assert [(one["stack_name"], one["state"]) for one in stacks] == [
                ("forgeline-small-calm", "standing"),
                ("forgeline-small-wild", "standing"),
            ]
        for tag in ("calm", "wild"):
            assert await site.stack_status(f"forgeline-small-{tag}") == "CREATE_COMPLETE"


async def read_to(server: Process, job_id: str, text: str) -> tuple[str, int]:
    """The log up to this text, and the offset to go on from."""
    log = ""
    async with aclosing(follow(server, job_id)) as events:
        async for event in events:
            log += event.get("text", "")
            if text in log:
                return log, event["next_offset"]
    raise AssertionError(log)


def essence_of(job: Message, tag: str) -> Any:
    """All that does not differ between two deploys but by their tag."""
    kept = {key: value for key, value in job.items() if key != "job_id" and not key.endswith("_at")}
    kept["result"] = {key: value for key, value in job["result"].items() if key != "duration_seconds"}
    return json.loads(json.dumps(kept).replace(tag, "TAG"))


def events_in(log: bytes, tag: str) -> list[str]:
    """What CloudFormation did, as the CDK tells it: when, and after how many others, is chance."""
    lines = (line for line in log.decode().splitlines() if " | AWS::" in line)
    return sorted(re.sub(r"\| *\d+/\d+ \| [^|]* \|", "|", line.replace(tag, "TAG")) for line in lines)


@in_its_time
async def test_a_stack_that_fails_tells_the_resource_and_the_reason_and_can_be_taken_down(site: Site) -> None:
    site.aws.take_role(f"KarpenterNodeRole-small-late-{REGION}")
    site.write_preset(outputs={"ModelUrl": "http://127.0.0.1:9/v1"}, serves=SERVES)
    async with site.running() as server:
        job = await deploy(server, cluster_tag="late")
        assert (job["status"], job["phase"], job["result"]["returncode"]) == ("failed", "failed", 1)
        assert re.fullmatch(
            r"The script ended with exit status 1\. KarpenterNodeRole \(AWS::IAM::Role\): .* already exists\.",
            job["result"]["error"],
        )
        assert job["result"]["outputs"] == {}
        (standing,) = (await get(server, "/api/hyperpod/stacks"))["stacks"]
        assert (standing["state"], standing["since"]) == ("uncertain", None)
        assert [model["name"] for model in (await get(server, "/api/models"))["models"]] == ["claude"]
        overrides = {"region": REGION, "cluster_tag": "late"}
        gone = await submit(server, "destroy", overrides=overrides, confirm="forgeline-small-late")
        assert (await ended(server, gone["job_id"]))["status"] == "succeeded"
        assert (await get(server, "/api/hyperpod/stacks"))["stacks"] == []
    assert await site.stack_status("forgeline-small-late") is None


@in_its_time
async def test_what_infraforge_refuses_is_told_in_its_own_words_and_leaves_no_stack(site: Site) -> None:
    site.write_preset()
    preset = site.folder / "presets" / "hyperpod" / "small.yaml"
    preset.write_text(preset.read_text().replace("  - hyperpod\n", "  - hyperpod\n  - nothing\n", 1))
    async with site.running() as server:
        job = await deploy(server)
        assert (job["status"], job["result"]["error"]) == (
            "failed",
            "The script ended with exit status 1. Error creating forge nothing: forge instance nothing not found.",
        )
        assert (await get(server, "/api/hyperpod/stacks"))["stacks"] == []


@pytest.mark.slow
@in_its_time
async def test_a_cancel_says_what_cloudformation_goes_on_with(site: Site) -> None:
    site.aws.gate.close()
    site.write_preset()
    async with site.running() as server:
        job_id = (await submit(server, overrides={"region": REGION}))["job_id"]
        await said(server, job_id, "CREATE_IN_PROGRESS")
        assert (await post(server, f"/api/hyperpod/jobs/{job_id}/cancel"))[0] == 202
        job = await ended(server, job_id)
        assert job["status"] == "cancelled"
        assert job["result"]["error"].startswith(
            "It was cancelled. CloudFormation is still at work on the stack forgeline-small in us-west-2 "
            "(CREATE_IN_PROGRESS)"
        )
        (standing,) = (await get(server, "/api/hyperpod/stacks"))["stacks"]
        assert (standing["stack_name"], standing["state"]) == ("forgeline-small", "uncertain")
