"""EMD's CloudFormation stacks come in: one deployment for each model and tag.

No provider of its own. What is read is what EMD's templates write: parameters ModelId, ModelTag, InstanceType,
EngineType and ServiceType, outputs Model, BaseURL and SageMakerEndpointName. No name is ever put together from others.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from pipeline.errors import ForgelineError
from pipeline.providers.aws import masked, translating
from pipeline.providers.chat_errors import clean

PREFIX: Final = "EMD-Model"

Status = Literal["deployed", "in_progress", "failed", "deleting", "not_deployed", "unknown"]


@dataclass(frozen=True, slots=True)
class Deployment:
    """How things stand with one model. `endpoint` is SageMaker's name for it, `base_url` EMD's router."""

    status: Status
    stack: str | None = None
    instance: str | None = None
    engine: str | None = None
    service: str | None = None
    endpoint: str | None = None
    base_url: str | None = None
    reason: str | None = None


NOT_DEPLOYED: Final = Deployment("not_deployed")


async def read_stacks(client: Any, region: str) -> dict[str, Deployment]:
    """What stands, by `<model id>/<tag>`. `client` is CloudFormation's."""
    found: dict[str, Deployment] = {}
    with translating(f"cloudformation:DescribeStacks in {region}, which shows what EMD has deployed,"):
        async for page in pages(client.describe_stacks, "NextToken"):
            for stack in page["Stacks"]:
                name = name_of(stack) if stack["StackName"].startswith(PREFIX) else None
                if name is not None and (name not in found or found[name].status != "deployed"):
                    found[name] = await _read(client, stack)
    return found


async def pages(
    ask: Callable[..., Awaitable[dict[str, Any]]], token: str, **asked: Any
) -> AsyncGenerator[dict[str, Any], None]:
    """All pages of a list; `token` is what this service calls the mark of the next one."""
    page = await ask(**asked)
    yield page
    while page.get(token):
        page = await ask(**asked, **{token: page[token]})
        yield page


def name_of(stack: Mapping[str, Any]) -> str | None:
    """`<model id>/<tag>` of a stack's model, None where it is no model's."""
    outputs, parameters = outputs_of(stack), parameters_of(stack)
    if "/" in outputs.get("Model", ""):
        return outputs["Model"]
    return f"{parameters['ModelId']}/{parameters.get('ModelTag') or 'dev'}" if parameters.get("ModelId") else None


def outputs_of(stack: Mapping[str, Any]) -> dict[str, str]:
    return {one["OutputKey"]: one.get("OutputValue", "") for one in stack.get("Outputs", ())}


def parameters_of(stack: Mapping[str, Any]) -> dict[str, str]:
    return {one["ParameterKey"]: one.get("ParameterValue", "") for one in stack.get("Parameters", ())}


async def _read(client: Any, stack: Mapping[str, Any]) -> Deployment:
    outputs, parameters = outputs_of(stack), parameters_of(stack)
    status = status_of(stack["StackStatus"])
    deployment = Deployment(
        status,
        stack["StackName"],
        parameters.get("InstanceType", "").removeprefix("ml.") or None,
        parameters.get("EngineType") or None,
        parameters.get("ServiceType") or None,
        outputs.get("SageMakerEndpointName") or None,
        outputs.get("BaseURL") or None,
    )
    return replace(deployment, reason=await _reason(client, stack, deployment))


def status_of(stack: str) -> Status:
    """What CloudFormation's status of a stack means for its model.

    A stack that is being updated, or was rolled back to what it was before, still serves.
    """
    match stack:
        case "CREATE_IN_PROGRESS" | "REVIEW_IN_PROGRESS" | "IMPORT_IN_PROGRESS":
            return "in_progress"
        case "DELETE_IN_PROGRESS" | "DELETE_COMPLETE":
            return "deleting"
    if stack.endswith("_FAILED") or stack.startswith(("ROLLBACK_", "IMPORT_ROLLBACK_")):
        return "failed"
    return "deployed" if stack.startswith(("CREATE_", "UPDATE_", "IMPORT_")) else "unknown"


async def _reason(client: Any, stack: Mapping[str, Any], deployment: Deployment) -> str | None:
    said = stack["StackStatus"]
    match deployment.status:
        case "deployed" if deployment.service == "sagemaker_async":
            return "it is deployed as sagemaker_async, which answers no request directly"
        case "deployed" if deployment.endpoint is None and deployment.base_url is None:
            return "its stack names neither an endpoint nor an address"
        case "deployed":
            return f"its stack is being changed: {said}" if said.endswith("_IN_PROGRESS") else None
        case "failed":
            cause = await _cause(client, stack["StackName"]) or stack.get("StackStatusReason") or ""
            return f"its stack is {said}" + (f": {clean(masked(cause))}" if cause else "")
    return f"its stack is {said}"


async def _cause(client: Any, stack: str) -> str:
    """The first failure among a stack's events, which come newest first; "" where they can't be had."""
    try:
        with translating("cloudformation:DescribeStackEvents"):
            events = (await client.describe_stack_events(StackName=stack))["StackEvents"]
    except ForgelineError:
        return ""
    failed = [event for event in events if str(event.get("ResourceStatus", "")).endswith("_FAILED")]
    return str(failed[-1].get("ResourceStatusReason", "")) if failed else ""
