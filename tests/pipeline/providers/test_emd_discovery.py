"""What EMD has deployed is found as EMD finds it, again and again, and every change is announced."""

from __future__ import annotations

import asyncio
import time

import pytest

from pipeline.errors import ModelNotDeployed, Unavailable
from pipeline.providers import emd_discovery
from pipeline.providers.emd_stacks import Deployment, Status, status_of
from tests.aio import asynchronous, comes_true
from tests.aws import Key, fails
from tests.aws.script import Fails
from tests.pipeline.providers.asking import ask, inference
from tests.pipeline.providers.on_emd import GEMMA, World, emd, preset

DENIED = fails("AccessDenied", "User: arn:aws:iam::123456789012:user/x is not authorized")
THROTTLED = fails("Throttling", "Rate exceeded")


async def found(world: World) -> Deployment:
    return await world.provider.deployment(world.models["gemma"])


def tasks() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("EMD")]


# --- what is found ---------------------------------------------------------------------------------


@asynchronous
async def test_a_deployed_model_is_told_with_all_that_its_stack_says() -> None:
    async with emd() as world:
        await world.aws.deploy_emd(GEMMA, instance="g5.4xlarge", endpoint="mine", key="made-up-key")
        stack = "EMD-Model-gemma-3-4b-it"
        router = world.aws.router_url
        assert await found(world) == Deployment(
            "deployed", stack, "g5.4xlarge", "vllm", "sagemaker_realtime", "mine", router
        )


@pytest.mark.parametrize(
    ("status", "stage", "means", "reason"),
    [
        ("InProgress", "Source", "in_progress", "it is being deployed (Source)"),
        ("InProgress", "Build", "in_progress", "it is being deployed (Build)"),
        ("Stopping", "Build", "in_progress", "its deployment is being stopped (Build)"),
        ("Failed", "Deploy", "failed", "its deployment failed (Deploy)"),
        ("Stopped", "Build", "failed", "its deployment was stopped (Build)"),
        ("Succeeded", "Deploy", "not_deployed", None),
        ("Superseded", "Source", "not_deployed", None),
    ],
)
@asynchronous
async def test_an_execution_without_a_stack_is_told_by_its_stage(
    status: str, stage: str, means: Status, reason: str | None
) -> None:
    async with emd() as world:
        await world.aws.deploy_emd(GEMMA, status=status, stage=stage)
        deployment = await found(world)
        assert (deployment.status, deployment.reason) == (means, reason)
        if means != "not_deployed":
            assert (deployment.instance, deployment.engine) == ("g5.2xlarge", "vllm")


STACKS: list[tuple[str, Status]] = [
    ("CREATE_COMPLETE", "deployed"),
    ("UPDATE_COMPLETE", "deployed"),
    ("UPDATE_IN_PROGRESS", "deployed"),
    ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "deployed"),
    ("UPDATE_ROLLBACK_IN_PROGRESS", "deployed"),
    ("UPDATE_ROLLBACK_COMPLETE", "deployed"),
    ("IMPORT_COMPLETE", "deployed"),
    ("REVIEW_IN_PROGRESS", "in_progress"),
    ("CREATE_IN_PROGRESS", "in_progress"),
    ("DELETE_IN_PROGRESS", "deleting"),
    ("CREATE_FAILED", "failed"),
    ("ROLLBACK_IN_PROGRESS", "failed"),
    ("ROLLBACK_COMPLETE", "failed"),
    ("ROLLBACK_FAILED", "failed"),
    ("DELETE_FAILED", "failed"),
    ("UPDATE_FAILED", "failed"),
    ("UPDATE_ROLLBACK_FAILED", "failed"),
    ("IMPORT_ROLLBACK_COMPLETE", "failed"),
    ("WHATEVER_COMES_NEXT", "unknown"),
]


@pytest.mark.parametrize(("status", "means"), STACKS)
def test_every_status_of_a_stack_has_a_meaning(status: str, means: Status) -> None:
    assert status_of(status) == means


@pytest.mark.parametrize(
    ("status", "means"), [row for row in STACKS if row[0].startswith(("CREATE", "ROLLBACK_COMPLETE", "DELETE_"))]
)
@asynchronous
async def test_a_stack_is_told_by_its_status(status: str, means: Status) -> None:
    async with emd() as world:
        await world.aws.deploy_emd(GEMMA, status=status)
        deployment = await found(world)
        assert (deployment.status, deployment.stack) == (means, "EMD-Model-gemma-3-4b-it")
        assert ("The primary container did not pass the ping" in (deployment.reason or "")) == (means == "failed")


@asynchronous
async def test_a_new_deployment_counts_for_more_than_the_stack_of_a_failed_one() -> None:
    async with emd() as world:
        await world.aws.deploy_emd(GEMMA, status="ROLLBACK_COMPLETE")
        world.aws.emd.executions[0].status = "InProgress"
        assert await world.status() == "in_progress"


@asynchronous
async def test_each_tag_is_a_deployment_of_its_own() -> None:
    async with emd() as world:
        world.models["blue"] = preset(tag="blue")
        await world.aws.deploy_emd(GEMMA, "blue")
        assert (await world.provider.deployment(world.models["blue"])).stack == "EMD-Model-gemma-3-4b-it-blue"
        assert await world.status() == "not_deployed"


@asynchronous
async def test_every_page_is_read() -> None:
    async with emd() as world:
        world.models["qwen"] = preset(model="Qwen2-VL-7B-Instruct")
        await world.aws.deploy_emd(GEMMA)
        await world.aws.deploy_emd("Qwen2-VL-7B-Instruct", status="InProgress")
        await world.aws.fill(stacks=60, executions=120)
        assert await world.status() == "deployed"
        assert (await world.provider.deployment(world.models["qwen"])).status == "in_progress"
        assert world.aws.calls["DescribeStacks"] > 1
        assert world.aws.calls["ListPipelineExecutions"] > 1


@asynchronous
async def test_a_failure_is_history_after_a_day_or_a_success() -> None:
    async with emd() as world:
        await world.aws.deploy_emd(GEMMA, status="Failed")
        (execution,) = world.aws.emd.executions
        execution.started -= 25 * 3600
        assert await world.status() == "not_deployed"
        execution.started = time.time()
        await world.becomes("failed")
        await world.aws.deploy_emd(GEMMA)
        await world.aws.undeploy_emd(GEMMA)
        await world.becomes("not_deployed")


@asynchronous
async def test_an_execution_that_has_ended_is_asked_for_once() -> None:
    async with emd() as world:
        await world.aws.deploy_emd(GEMMA, status="Failed")
        for _ in range(4):
            await world.status()
            await world.looked()
        assert world.aws.calls["GetPipelineExecution"] == 1


@asynchronous
async def test_where_emd_was_never_set_up_the_line_is_followed_by_what_comes_before_it() -> None:
    async with emd() as world:
        with pytest.raises(ModelNotDeployed, match=r"  # EMD has not been set up .*: emd bootstrap comes first"):
            await world.provider.open(world.route, inference())


# --- while it runs ---------------------------------------------------------------------------------


@asynchronous
async def test_a_model_that_gets_deployed_while_we_run_is_usable_and_told() -> None:
    async with emd() as world:
        world.models["twin"] = preset()
        world.models["other"] = preset(model="another")
        await world.aws.bootstrap_emd()
        assert await world.status() == "not_deployed"
        world.told.clear()
        await world.aws.deploy_emd(GEMMA, status="InProgress")
        await comes_true(lambda: world.told == ["gemma", "twin"])
        assert await world.status() == "in_progress"
        await world.aws.deploy_emd(GEMMA)
        await comes_true(lambda: world.told == ["gemma", "twin"] * 2)
        assert (await world.provider.availability(world.models["gemma"])).status == "available"
        assert (await ask(world.provider, world.route))[:2] == ["Hello", " world"]
        await world.aws.undeploy_emd(GEMMA)
        await comes_true(lambda: world.told == ["gemma", "twin"] * 3)


@asynchronous
async def test_availability_is_told_at_once_and_announced_when_it_is_known() -> None:
    async with emd() as world:
        await world.aws.deploy_emd(GEMMA)
        told = await world.provider.availability(world.models["gemma"])
        assert (told.status, told.reason) == ("unknown", "it is being looked up")
        await comes_true(lambda: world.told == ["gemma"])
        assert (await world.provider.availability(world.models["gemma"])).status == "available"


@asynchronous
async def test_those_who_come_together_wait_for_one_look() -> None:
    async with emd(seconds=600) as world:
        await world.aws.deploy_emd(GEMMA)
        asked = await asyncio.gather(*(found(world) for _ in range(20)))
        assert {deployment.status for deployment in asked} == {"deployed"}
        assert world.aws.calls["DescribeStacks"] == 1
        assert tasks() == ["EMD deployments in us-west-2"]


@asynchronous
async def test_nobody_asks_aws_before_somebody_asks_us() -> None:
    async with emd() as world:
        assert not tasks()
        assert not world.aws.requests


@asynchronous
async def test_a_region_that_no_preset_names_and_nobody_asks_for_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with emd() as world:
        await world.aws.deploy_emd(GEMMA)
        monkeypatch.setattr(emd_discovery, "KEEP", 0.0)
        stray = preset()
        world.models.clear()
        await world.provider.availability(stray)
        await comes_true(lambda: not tasks())
        monkeypatch.setattr(emd_discovery, "KEEP", 600.0)
        assert (await world.provider.deployment(stray)).status == "deployed"


# --- when it fails ---------------------------------------------------------------------------------


@pytest.mark.parametrize("failed", [DENIED, THROTTLED])
@asynchronous
async def test_a_failure_keeps_what_was_known_and_says_so_until_it_is_over(failed: Fails) -> None:
    async with emd() as world:
        await world.aws.deploy_emd(GEMMA)
        assert await world.status() == "deployed"
        world.aws.next("DescribeStacks", *[failed] * 2)
        await comes_true(lambda: world.told == ["gemma", "gemma"])
        deployment = await found(world)
        assert deployment.status == "deployed"
        assert (deployment.reason or "").startswith("this is how it was when it could last be looked up:")
        assert "123456789012" not in (deployment.reason or "")
        assert (await ask(world.provider, world.route))[:2] == ["Hello", " world"]
        await comes_true(lambda: world.told == ["gemma"] * 3)
        assert (await found(world)).reason is None


@asynchronous
async def test_without_codepipelines_word_a_deployed_model_stays_usable() -> None:
    async with emd() as world:
        world.models["other"] = preset(model="another")
        await world.aws.deploy_emd(GEMMA)
        world.aws.next("ListPipelineExecutions", *[fails("AccessDeniedException", "no")] * 500)
        assert (await ask(world.provider, world.route))[:2] == ["Hello", " world"]
        other = await world.provider.deployment(world.models["other"])
        assert other.status == "not_deployed"
        assert (other.reason or "").startswith("whether it is being deployed can't be told: AWS does not allow")


@asynchronous
async def test_a_throttled_first_look_may_be_asked_for_again() -> None:
    async with emd(seconds=600) as world:
        await world.aws.deploy_emd(GEMMA)
        world.aws.next("DescribeStacks", THROTTLED)
        with pytest.raises(Unavailable, match="can't be looked up") as caught:
            await world.provider.open(world.route, inference())
        assert caught.value.retryable
        assert caught.value.retry_after is not None
        assert (await ask(world.provider, world.route))[:2] == ["Hello", " world"]


@asynchronous
async def test_a_failure_is_not_asked_about_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with emd(seconds=600) as world:
        monkeypatch.setattr(emd_discovery, "PAUSE", 600.0)
        world.aws.keys["AKIAFORGELINETEST000"] = Key("another")
        for _ in range(5):
            with pytest.raises(Unavailable):
                await world.provider.open(world.route, inference())
        assert world.aws.calls["DescribeStacks"] <= 1


@asynchronous
async def test_an_aws_that_does_not_answer_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async with emd(seconds=600) as world:
        await world.aws.deploy_emd(GEMMA)
        assert await world.status() == "deployed"  # the clients are made
        monkeypatch.setattr(emd_discovery, "LOOK", 0.05)
        world.aws.next("DescribeStacks", fails("InternalFailure", after=asyncio.Event()))
        await world.provider._regions["us-west-2"].look_again()
        deployment = await found(world)
        assert deployment.status == "deployed"
        assert "AWS did not say within 0.05 s" in (deployment.reason or "")


@asynchronous
async def test_a_bug_in_the_reading_does_not_end_the_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(client: object, region: str) -> dict[str, Deployment]:
        raise ZeroDivisionError("secret")

    async with emd() as world:
        await world.aws.deploy_emd(GEMMA)
        with monkeypatch.context() as patch:
            patch.setattr(emd_discovery, "read_stacks", broken)
            deployment = await found(world)
            assert deployment.status == "unknown"
            assert "secret" not in (deployment.reason or "")
        await world.becomes("deployed")


@asynchronous
async def test_closing_ends_the_looking() -> None:
    async with emd() as world:
        await world.provider.availability(world.models["gemma"])
        await world.provider.close()
        assert not tasks()
