"""Discovery of what EMD has deployed: what it finds, while it runs, and when it fails."""

from __future__ import annotations

import asyncio
import time

import pytest

from pipeline.errors import ModelNotDeployed, Unavailable
from pipeline.providers.emd import discovery
from pipeline.providers.emd.deployments import status_from_stack
from pipeline.stage import Deployment, DeploymentStatus
from tests.async_tests import async_test, wait_until
from tests.aws import Key, error_response
from tests.aws.scripted_responses import ErrorResponse
from tests.pipeline.providers.emd.helpers import GEMMA, EmdFixture, emd_fixture, make_emd_preset
from tests.pipeline.providers.helpers import collect_parts, make_inference

DENIED = error_response("AccessDenied", "User: arn:aws:iam::123456789012:user/x is not authorized")
THROTTLED = error_response("Throttling", "Rate exceeded")


async def gemma_deployment(emd: EmdFixture) -> Deployment:
    return await emd.provider.deployment(emd.models["gemma"])


def discovery_tasks() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("EMD")]


# --- what is found ---------------------------------------------------------------------------------


@async_test
async def test_deployment_has_all_fields_of_its_stack() -> None:
    async with emd_fixture() as emd:
        await emd.aws.deploy_emd(GEMMA, instance="g5.4xlarge", endpoint="mine", key="made-up-key")
        stack = "EMD-Model-gemma-3-4b-it"
        router = emd.aws.router_url
        assert await gemma_deployment(emd) == Deployment(
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
@async_test
async def test_execution_without_stack_is_reported_by_stage(
    status: str, stage: str, means: DeploymentStatus, reason: str | None
) -> None:
    async with emd_fixture() as emd:
        await emd.aws.deploy_emd(GEMMA, status=status, stage=stage)
        deployment = await gemma_deployment(emd)
        assert (deployment.status, deployment.reason) == (means, reason)
        if means != "not_deployed":
            assert (deployment.instance, deployment.engine) == ("g5.2xlarge", "vllm")


STATUS_BY_STACK_STATUS: list[tuple[str, DeploymentStatus]] = [
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


@pytest.mark.parametrize(("status", "means"), STATUS_BY_STACK_STATUS)
def test_every_stack_status_is_mapped(status: str, means: DeploymentStatus) -> None:
    assert status_from_stack(status) == means


@pytest.mark.parametrize(
    ("status", "means"),
    [row for row in STATUS_BY_STACK_STATUS if row[0].startswith(("CREATE", "ROLLBACK_COMPLETE", "DELETE_"))],
)
@async_test
async def test_deployment_status_follows_stack_status(status: str, means: DeploymentStatus) -> None:
    async with emd_fixture() as emd:
        await emd.aws.deploy_emd(GEMMA, status=status)
        deployment = await gemma_deployment(emd)
        assert (deployment.status, deployment.stack) == (means, "EMD-Model-gemma-3-4b-it")
        assert ("The primary container did not pass the ping" in (deployment.reason or "")) == (means == "failed")


@async_test
async def test_running_execution_overrides_failed_stack() -> None:
    async with emd_fixture() as emd:
        await emd.aws.deploy_emd(GEMMA, status="ROLLBACK_COMPLETE")
        emd.aws.emd.executions[0].status = "InProgress"
        assert await emd.status() == "in_progress"


@async_test
async def test_each_tag_is_a_separate_deployment() -> None:
    async with emd_fixture() as emd:
        emd.models["blue"] = make_emd_preset(tag="blue")
        await emd.aws.deploy_emd(GEMMA, "blue")
        assert (await emd.provider.deployment(emd.models["blue"])).stack == "EMD-Model-gemma-3-4b-it-blue"
        assert await emd.status() == "not_deployed"


@async_test
async def test_discovery_reads_every_page() -> None:
    async with emd_fixture() as emd:
        emd.models["qwen"] = make_emd_preset(model="Qwen2-VL-7B-Instruct")
        await emd.aws.deploy_emd(GEMMA)
        await emd.aws.deploy_emd("Qwen2-VL-7B-Instruct", status="InProgress")
        await emd.aws.add_unrelated(stacks=60, executions=120)
        assert await emd.status() == "deployed"
        assert (await emd.provider.deployment(emd.models["qwen"])).status == "in_progress"
        assert emd.aws.calls["DescribeStacks"] > 1
        assert emd.aws.calls["ListPipelineExecutions"] > 1


@async_test
async def test_failed_execution_is_ignored_after_a_day_or_a_success() -> None:
    async with emd_fixture() as emd:
        await emd.aws.deploy_emd(GEMMA, status="Failed")
        (execution,) = emd.aws.emd.executions
        execution.started -= 25 * 3600
        assert await emd.status() == "not_deployed"
        execution.started = time.time()
        await emd.wait_for_status("failed")
        await emd.aws.deploy_emd(GEMMA)
        await emd.aws.undeploy_emd(GEMMA)
        await emd.wait_for_status("not_deployed")


@async_test
async def test_details_of_ended_execution_are_read_once() -> None:
    async with emd_fixture() as emd:
        await emd.aws.deploy_emd(GEMMA, status="Failed")
        for _ in range(4):
            await emd.status()
            await emd.wait_for_refresh()
        assert emd.aws.calls["GetPipelineExecution"] == 1


@async_test
async def test_region_without_emd_reports_bootstrap() -> None:
    async with emd_fixture() as emd:
        with pytest.raises(ModelNotDeployed, match=r"  # EMD has not been set up .*: emd bootstrap comes first"):
            await emd.provider.open(emd.target, make_inference())


# --- while it runs ---------------------------------------------------------------------------------


@async_test
async def test_model_deployed_at_runtime_is_announced_and_usable() -> None:
    async with emd_fixture() as emd:
        emd.models["twin"] = make_emd_preset()
        emd.models["other"] = make_emd_preset(model="another")
        await emd.aws.bootstrap_emd()
        assert await emd.status() == "not_deployed"
        emd.changed_models.clear()
        await emd.aws.deploy_emd(GEMMA, status="InProgress")
        await wait_until(lambda: emd.changed_models == ["gemma", "twin"])
        assert await emd.status() == "in_progress"
        await emd.aws.deploy_emd(GEMMA)
        await wait_until(lambda: emd.changed_models == ["gemma", "twin"] * 2)
        assert (await emd.provider.availability(emd.models["gemma"])).status == "available"
        assert (await collect_parts(emd.provider, emd.target))[:2] == ["Hello", " world"]
        await emd.aws.undeploy_emd(GEMMA)
        await wait_until(lambda: emd.changed_models == ["gemma", "twin"] * 3)


@async_test
async def test_availability_is_unknown_at_once_and_announced_after_discovery() -> None:
    async with emd_fixture() as emd:
        await emd.aws.deploy_emd(GEMMA)
        availability = await emd.provider.availability(emd.models["gemma"])
        assert (availability.status, availability.reason) == ("unknown", "it is being looked up")
        await wait_until(lambda: emd.changed_models == ["gemma"])
        assert (await emd.provider.availability(emd.models["gemma"])).status == "available"


@async_test
async def test_concurrent_requests_wait_for_one_refresh() -> None:
    async with emd_fixture(refresh_seconds=600) as emd:
        await emd.aws.deploy_emd(GEMMA)
        deployments = await asyncio.gather(*(gemma_deployment(emd) for _ in range(20)))
        assert {deployment.status for deployment in deployments} == {"deployed"}
        assert emd.aws.calls["DescribeStacks"] == 1
        assert discovery_tasks() == ["EMD deployments in us-west-2"]


@async_test
async def test_no_aws_call_before_first_request() -> None:
    async with emd_fixture() as emd:
        assert not discovery_tasks()
        assert not emd.aws.requests


@async_test
async def test_unused_region_without_presets_stops_refreshing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with emd_fixture() as emd:
        await emd.aws.deploy_emd(GEMMA)
        monkeypatch.setattr(discovery, "KEEP_SECONDS", 0.0)
        stray = make_emd_preset()
        emd.models.clear()
        await emd.provider.availability(stray)
        await wait_until(lambda: not discovery_tasks())
        monkeypatch.setattr(discovery, "KEEP_SECONDS", 600.0)
        assert (await emd.provider.deployment(stray)).status == "deployed"


# --- when it fails ---------------------------------------------------------------------------------


@pytest.mark.parametrize("failed", [DENIED, THROTTLED])
@async_test
async def test_failed_refresh_keeps_last_state_with_reason(failed: ErrorResponse) -> None:
    async with emd_fixture() as emd:
        await emd.aws.deploy_emd(GEMMA)
        assert await emd.status() == "deployed"
        emd.aws.enqueue("DescribeStacks", *[failed] * 2)
        await wait_until(lambda: emd.changed_models == ["gemma", "gemma"])
        deployment = await gemma_deployment(emd)
        assert deployment.status == "deployed"
        assert (deployment.reason or "").startswith("this is how it was when it could last be looked up:")
        assert "123456789012" not in (deployment.reason or "")
        assert (await collect_parts(emd.provider, emd.target))[:2] == ["Hello", " world"]
        await wait_until(lambda: emd.changed_models == ["gemma"] * 3)
        assert (await gemma_deployment(emd)).reason is None


@async_test
async def test_deployed_model_stays_usable_without_codepipeline() -> None:
    async with emd_fixture() as emd:
        emd.models["other"] = make_emd_preset(model="another")
        await emd.aws.deploy_emd(GEMMA)
        emd.aws.enqueue("ListPipelineExecutions", *[error_response("AccessDeniedException", "no")] * 500)
        assert (await collect_parts(emd.provider, emd.target))[:2] == ["Hello", " world"]
        other = await emd.provider.deployment(emd.models["other"])
        assert other.status == "not_deployed"
        assert (other.reason or "").startswith("whether it is being deployed can't be told: AWS does not allow")


@async_test
async def test_throttled_first_refresh_is_retryable() -> None:
    async with emd_fixture(refresh_seconds=600) as emd:
        await emd.aws.deploy_emd(GEMMA)
        emd.aws.enqueue("DescribeStacks", THROTTLED)
        with pytest.raises(Unavailable, match="can't be looked up") as caught:
            await emd.provider.open(emd.target, make_inference())
        assert caught.value.retryable
        assert caught.value.retry_after is not None
        assert (await collect_parts(emd.provider, emd.target))[:2] == ["Hello", " world"]


@async_test
async def test_failed_refresh_is_not_retried_during_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    async with emd_fixture(refresh_seconds=600) as emd:
        monkeypatch.setattr(discovery, "RETRY_PAUSE_SECONDS", 600.0)
        emd.aws.keys["AKIAFORGELINETEST000"] = Key("another")
        for _ in range(5):
            with pytest.raises(Unavailable):
                await emd.provider.open(emd.target, make_inference())
        assert emd.aws.calls["DescribeStacks"] <= 1


@async_test
async def test_hanging_refresh_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async with emd_fixture(refresh_seconds=600) as emd:
        await emd.aws.deploy_emd(GEMMA)
        assert await emd.status() == "deployed"  # the clients are made
        monkeypatch.setattr(discovery, "REFRESH_TIMEOUT_SECONDS", 0.05)
        emd.aws.enqueue("DescribeStacks", error_response("InternalFailure", after=asyncio.Event()))
        await emd.provider._regions["us-west-2"].refresh()
        deployment = await gemma_deployment(emd)
        assert deployment.status == "deployed"
        assert "AWS did not say within 0.05 s" in (deployment.reason or "")


@async_test
async def test_unexpected_exception_does_not_stop_discovery(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(client: object, region: str) -> dict[str, Deployment]:
        raise ZeroDivisionError("secret")

    async with emd_fixture() as emd:
        await emd.aws.deploy_emd(GEMMA)
        with monkeypatch.context() as patch:
            patch.setattr(discovery, "read_stacks", broken)
            deployment = await gemma_deployment(emd)
            assert deployment.status == "unknown"
            assert "secret" not in (deployment.reason or "")
        await emd.wait_for_status("deployed")


@async_test
async def test_close_stops_discovery() -> None:
    async with emd_fixture() as emd:
        await emd.provider.availability(emd.models["gemma"])
        await emd.provider.close()
        assert not discovery_tasks()
