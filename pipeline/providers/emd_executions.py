"""EMD's deployments on their way come in: the executions of its CodePipeline, one for each model and tag.

No provider of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pipeline.errors import ForgelineError
from pipeline.providers.aws import masked, translating
from pipeline.providers.chat_errors import clean
from pipeline.providers.emd_stacks import Deployment, pages

PIPELINE: Final = "EMD-Env-Pipeline"
RECENT: Final = timedelta(hours=24)  # as EMD: a failure that is older is history
AT_ONCE: Final = 5  # calls; CodePipeline allows an account few a second

_UNDER_WAY: Final = {"InProgress", "Stopping"}
_FAILED: Final = {"Failed", "Stopped", "Cancelled"}


@dataclass(frozen=True, slots=True)
class _Detail:
    """What is asked of one execution apart: what it deploys, and how far it has come."""

    variables: Mapping[str, str]
    stage: str = ""
    cause: str = ""


class Executions:
    """Those of one region. What has ended is asked for once."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._ended: dict[str, _Detail] = {}

    async def read(self, client: Any) -> dict[str, Deployment] | None:
        """The newest of each `<model id>/<tag>`, where it is under way or has failed lately. None where EMD has not
        been set up. `client` is CodePipeline's.
        """
        with translating(f"CodePipeline in {self._region}, which shows what EMD is deploying,"):
            summaries = await _summaries(client)
            if summaries is None:
                return None
            turns = asyncio.Semaphore(AT_ONCE)
            details = await _all(*(self._detail(client, summary, turns) for summary in summaries))
        self._ended = {
            summary["pipelineExecutionId"]: detail
            for summary, detail in zip(summaries, details, strict=True)
            if summary["status"] not in _UNDER_WAY
        }
        return _newest(zip(summaries, details, strict=True))

    async def _detail(self, client: Any, summary: Mapping[str, Any], turns: asyncio.Semaphore) -> _Detail:
        id, status = summary["pipelineExecutionId"], summary["status"]
        if id in self._ended:
            return self._ended[id]
        async with turns:
            told = await client.get_pipeline_execution(pipelineName=PIPELINE, pipelineExecutionId=id)
            said = told["pipelineExecution"].get("variables", ())
            variables = {one["name"]: one.get("resolvedValue", "") for one in said}
            if status in _UNDER_WAY | _FAILED:
                return _Detail(variables, *await _stage(client, id))
            return _Detail(variables)


async def _all(*asked: Awaitable[_Detail]) -> list[_Detail]:
    """All answers. Raises the first error, once none is under way any more."""
    told = await asyncio.gather(*asked, return_exceptions=True)
    for one in told:
        if isinstance(one, BaseException):
            raise one
    return [one for one in told if isinstance(one, _Detail)]


async def _summaries(client: Any) -> list[dict[str, Any]] | None:
    """Every execution that is under way, and those that ended lately; newest first."""
    since = datetime.now(UTC) - RECENT
    found: list[dict[str, Any]] = []
    try:
        async for page in pages(client.list_pipeline_executions, "nextToken", pipelineName=PIPELINE):
            found += [
                one
                for one in page["pipelineExecutionSummaries"]
                if one["status"] in _UNDER_WAY or one.get("lastUpdateTime", one["startTime"]) > since
            ]
    except client.exceptions.PipelineNotFoundException:
        return None
    return sorted(found, key=lambda one: one["startTime"], reverse=True)


async def _stage(client: Any, id: str) -> tuple[str, str]:
    """The stage that an execution is in or failed in, and why; "" where that can't be told."""
    try:
        with translating("codepipeline:ListActionExecutions"):
            told = await client.list_action_executions(pipelineName=PIPELINE, filter={"pipelineExecutionId": id})
    except ForgelineError:
        return "", ""
    actions = told["actionExecutionDetails"]
    for action in actions:
        if action.get("status") in {"Failed", "InProgress", "Abandoned"}:
            result = action.get("output", {}).get("executionResult", {})
            cause = result.get("errorDetails", {}).get("message") or result.get("externalExecutionSummary") or ""
            return action.get("stageName", ""), clean(masked(cause))
    return (max(actions, key=lambda one: one["startTime"]).get("stageName", ""), "") if actions else ("", "")


def _newest(found: Iterable[tuple[Mapping[str, Any], _Detail]]) -> dict[str, Deployment]:
    seen: set[str] = set()
    newest: dict[str, Deployment] = {}
    for summary, detail in found:
        said = detail.variables
        name = f"{said.get('ModelId', '')}/{said.get('ModelTag') or 'dev'}"
        if said.get("ModelId") and name not in seen:
            seen.add(name)  # one that succeeded hides the failures before it
            if summary["status"] in _UNDER_WAY | _FAILED:
                newest[name] = _deployment(summary, detail)
    return newest


def _deployment(summary: Mapping[str, Any], detail: _Detail) -> Deployment:
    said, status = detail.variables, summary["status"]
    stage = f" ({detail.stage})" if detail.stage else ""
    reason = {
        "InProgress": f"it is being deployed{stage}",
        "Stopping": f"its deployment is being stopped{stage}",
        "Failed": f"its deployment failed{stage}" + (f": {detail.cause}" if detail.cause else ""),
    }
    return Deployment(
        "in_progress" if status in _UNDER_WAY else "failed",
        None,
        said.get("InstanceType", "").removeprefix("ml.") or None,
        said.get("EngineType") or None,
        said.get("ServiceType") or None,
        reason=reason.get(status, f"its deployment was stopped{stage}"),
    )
