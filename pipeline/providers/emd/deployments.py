"""What EMD has deployed or is deploying: its CloudFormation stacks, and the executions of its CodePipeline.

Read is what EMD's templates write: the parameters ModelId, ModelTag, InstanceType, EngineType and ServiceType, and the
outputs Model, BaseURL and SageMakerEndpointName. No resource name is composed from other names.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from msgspec import Struct

from pipeline.aws.errors import translate_errors
from pipeline.errors import ForgelineError
from pipeline.masking import clean_message, mask_identifiers
from pipeline.presets.models import ModelPreset
from pipeline.stage import Deployment, DeploymentStatus

STACK_PREFIX: Final = "EMD-Model"
PIPELINE: Final = "EMD-Env-Pipeline"
FAILURE_MAX_AGE: Final = timedelta(hours=24)  # as in EMD: an older failure is history
MAX_CONCURRENT_CALLS: Final = 5  # CodePipeline allows an account only a few calls a second

_RUNNING: Final = {"InProgress", "Stopping"}
_FAILED: Final = {"Failed", "Stopped", "Cancelled"}


class EmdDeployOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """The instance type, engine and service with which `emd deploy` deploys this model."""

    instance: str
    engine: str = "vllm"
    service: str = "sagemaker_realtime"


class EmdModelOptions(Struct, frozen=True):
    """The model's AWS region (None: the one of AWS's own settings), its tag, and how it is deployed."""

    region: str | None = None
    tag: str = "dev"
    deploy: EmdDeployOptions | None = None


NOT_DEPLOYED: Final = Deployment("not_deployed")


def model_key(preset: ModelPreset) -> str:
    """`<model id>/<tag>`, by which EMD tells models apart."""
    return f"{preset.model}/{preset.options_of(EmdModelOptions).tag}"


async def _paginate(
    operation: Callable[..., Awaitable[dict[str, Any]]], token: str, **arguments: Any
) -> AsyncGenerator[dict[str, Any], None]:
    """All pages of a list; `token` is this service's name for the token of the next page."""
    page = await operation(**arguments)
    yield page
    while page.get(token):
        page = await operation(**arguments, **{token: page[token]})
        yield page


# --- stacks ----------------------------------------------------------------------------------------


async def read_stacks(client: Any, region: str) -> dict[str, Deployment]:
    """The deployments that have a stack, by `<model id>/<tag>`. `client` is CloudFormation's."""
    deployments: dict[str, Deployment] = {}
    with translate_errors(f"cloudformation:DescribeStacks in {region}, which shows what EMD has deployed,"):
        async for page in _paginate(client.describe_stacks, "NextToken"):
            for stack in page["Stacks"]:
                key = _stack_model_key(stack) if stack["StackName"].startswith(STACK_PREFIX) else None
                if key is not None and (key not in deployments or deployments[key].status != "deployed"):
                    deployments[key] = await _read_stack(client, stack)
    return deployments


def _stack_model_key(stack: Mapping[str, Any]) -> str | None:
    """`<model id>/<tag>`; None for a stack that belongs to no model."""
    outputs, parameters = _stack_outputs(stack), _stack_parameters(stack)
    if "/" in outputs.get("Model", ""):
        return outputs["Model"]
    return f"{parameters['ModelId']}/{parameters.get('ModelTag') or 'dev'}" if parameters.get("ModelId") else None


def _stack_outputs(stack: Mapping[str, Any]) -> dict[str, str]:
    return {output["OutputKey"]: output.get("OutputValue", "") for output in stack.get("Outputs", ())}


def _stack_parameters(stack: Mapping[str, Any]) -> dict[str, str]:
    return {item["ParameterKey"]: item.get("ParameterValue", "") for item in stack.get("Parameters", ())}


async def _read_stack(client: Any, stack: Mapping[str, Any]) -> Deployment:
    outputs, parameters = _stack_outputs(stack), _stack_parameters(stack)
    deployment = Deployment(
        status_from_stack(stack["StackStatus"]),
        stack["StackName"],
        parameters.get("InstanceType", "").removeprefix("ml.") or None,
        parameters.get("EngineType") or None,
        parameters.get("ServiceType") or None,
        outputs.get("SageMakerEndpointName") or None,
        outputs.get("BaseURL") or None,
    )
    return replace(deployment, reason=await _stack_reason(client, stack, deployment))


def status_from_stack(stack_status: str) -> DeploymentStatus:
    """The deployment status for a stack status of CloudFormation's.

    A stack that is being updated, or was rolled back to its version before the update, still serves.
    """
    match stack_status:
        case "CREATE_IN_PROGRESS" | "REVIEW_IN_PROGRESS" | "IMPORT_IN_PROGRESS":
            return "in_progress"
        case "DELETE_IN_PROGRESS" | "DELETE_COMPLETE":
            return "deleting"
    if stack_status.endswith("_FAILED") or stack_status.startswith(("ROLLBACK_", "IMPORT_ROLLBACK_")):
        return "failed"
    return "deployed" if stack_status.startswith(("CREATE_", "UPDATE_", "IMPORT_")) else "unknown"


async def _stack_reason(client: Any, stack: Mapping[str, Any], deployment: Deployment) -> str | None:
    stack_status = stack["StackStatus"]
    match deployment.status:
        case "deployed" if deployment.service == "sagemaker_async":
            return "it is deployed as sagemaker_async, which answers no request directly"
        case "deployed" if deployment.endpoint is None and deployment.base_url is None:
            return "its stack names neither an endpoint nor an address"
        case "deployed":
            return f"its stack is being changed: {stack_status}" if stack_status.endswith("_IN_PROGRESS") else None
        case "failed":
            cause = await _first_stack_failure(client, stack["StackName"]) or stack.get("StackStatusReason") or ""
            return f"its stack is {stack_status}" + (f": {clean_message(mask_identifiers(cause))}" if cause else "")
    return f"its stack is {stack_status}"


async def _first_stack_failure(client: Any, stack: str) -> str:
    """The reason of the first failure among a stack's events, which come newest first; "" if they can't be read."""
    try:
        with translate_errors("cloudformation:DescribeStackEvents"):
            events = (await client.describe_stack_events(StackName=stack))["StackEvents"]
    except ForgelineError:
        return ""
    failures = [event for event in events if str(event.get("ResourceStatus", "")).endswith("_FAILED")]
    return str(failures[-1].get("ResourceStatusReason", "")) if failures else ""


# --- pipeline executions ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _ExecutionDetail:
    """What an execution deploys, the stage that it is in or failed in, and the cause of the failure."""

    variables: Mapping[str, str]
    stage: str = ""
    cause: str = ""


class PipelineExecutions:
    """The executions of EMD's pipeline in one region. The details of one that has ended are read once."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._ended: dict[str, _ExecutionDetail] = {}

    async def read(self, client: Any) -> dict[str, Deployment] | None:
        """The newest deployment of each `<model id>/<tag>` that is running or has failed recently.

        None if EMD has not been set up in the region. `client` is CodePipeline's.
        """
        with translate_errors(f"CodePipeline in {self._region}, which shows what EMD is deploying,"):
            summaries = await _list_recent_executions(client)
            if summaries is None:
                return None
            semaphore = asyncio.Semaphore(MAX_CONCURRENT_CALLS)
            details = await _gather_all(*(self._read_detail(client, summary, semaphore) for summary in summaries))
        self._ended = {
            summary["pipelineExecutionId"]: detail
            for summary, detail in zip(summaries, details, strict=True)
            if summary["status"] not in _RUNNING
        }
        return _newest_by_model(zip(summaries, details, strict=True))

    async def _read_detail(
        self, client: Any, summary: Mapping[str, Any], semaphore: asyncio.Semaphore
    ) -> _ExecutionDetail:
        id, status = summary["pipelineExecutionId"], summary["status"]
        if id in self._ended:
            return self._ended[id]
        async with semaphore:
            output = await client.get_pipeline_execution(pipelineName=PIPELINE, pipelineExecutionId=id)
            items = output["pipelineExecution"].get("variables", ())
            variables = {item["name"]: item.get("resolvedValue", "") for item in items}
            if status in _RUNNING | _FAILED:
                return _ExecutionDetail(variables, *await _read_stage(client, id))
            return _ExecutionDetail(variables)


async def _gather_all(*awaitables: Awaitable[_ExecutionDetail]) -> list[_ExecutionDetail]:
    """All results. Raises the first error, once every call has ended."""
    results = await asyncio.gather(*awaitables, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if isinstance(result, _ExecutionDetail)]


async def _list_recent_executions(client: Any) -> list[dict[str, Any]] | None:
    """Every execution that is running, and those that ended recently; newest first. None without a pipeline."""
    since = datetime.now(UTC) - FAILURE_MAX_AGE
    summaries: list[dict[str, Any]] = []
    try:
        async for page in _paginate(client.list_pipeline_executions, "nextToken", pipelineName=PIPELINE):
            summaries += [
                summary
                for summary in page["pipelineExecutionSummaries"]
                if summary["status"] in _RUNNING or summary.get("lastUpdateTime", summary["startTime"]) > since
            ]
    except client.exceptions.PipelineNotFoundException:
        return None
    return sorted(summaries, key=lambda summary: summary["startTime"], reverse=True)


async def _read_stage(client: Any, id: str) -> tuple[str, str]:
    """The stage that an execution is in or failed in, and the cause; "" for what can't be read."""
    try:
        with translate_errors("codepipeline:ListActionExecutions"):
            output = await client.list_action_executions(pipelineName=PIPELINE, filter={"pipelineExecutionId": id})
    except ForgelineError:
        return "", ""
    actions = output["actionExecutionDetails"]
    for action in actions:
        if action.get("status") in {"Failed", "InProgress", "Abandoned"}:
            result = action.get("output", {}).get("executionResult", {})
            cause = result.get("errorDetails", {}).get("message") or result.get("externalExecutionSummary") or ""
            return action.get("stageName", ""), clean_message(mask_identifiers(cause))
    return (max(actions, key=lambda action: action["startTime"]).get("stageName", ""), "") if actions else ("", "")


def _newest_by_model(executions: Iterable[tuple[Mapping[str, Any], _ExecutionDetail]]) -> dict[str, Deployment]:
    seen: set[str] = set()
    newest: dict[str, Deployment] = {}
    for summary, detail in executions:
        variables = detail.variables
        key = f"{variables.get('ModelId', '')}/{variables.get('ModelTag') or 'dev'}"
        if variables.get("ModelId") and key not in seen:
            seen.add(key)  # an execution that succeeded hides the failures before it
            if summary["status"] in _RUNNING | _FAILED:
                newest[key] = _execution_deployment(summary, detail)
    return newest


def _execution_deployment(summary: Mapping[str, Any], detail: _ExecutionDetail) -> Deployment:
    variables, status = detail.variables, summary["status"]
    stage = f" ({detail.stage})" if detail.stage else ""
    reasons = {
        "InProgress": f"it is being deployed{stage}",
        "Stopping": f"its deployment is being stopped{stage}",
        "Failed": f"its deployment failed{stage}" + (f": {detail.cause}" if detail.cause else ""),
    }
    return Deployment(
        "in_progress" if status in _RUNNING else "failed",
        None,
        variables.get("InstanceType", "").removeprefix("ml.") or None,
        variables.get("EngineType") or None,
        variables.get("ServiceType") or None,
        reason=reasons.get(status, f"its deployment was stopped{stage}"),
    )
