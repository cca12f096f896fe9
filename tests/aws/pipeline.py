"""EMD's pipeline, as CodePipeline tells of it: what moto has not."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.aws.script import Fails

PIPELINE = "EMD-Env-Pipeline"
STAGES = ("Source", "Build", "Deploy")


@dataclass
class Execution:
    """One deployment on its way. `stage` is the one it is in, or ended in."""

    variables: Mapping[str, str]
    status: str
    stage: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started: float = field(default_factory=time.time)

    @property
    def is_over(self) -> bool:
        return self.status not in {"InProgress", "Stopping"}

    @property
    def stages(self) -> list[tuple[str, str]]:
        """The stages it has reached, each with its status."""
        at = STAGES.index(self.stage)
        here = {"Stopping": "InProgress", "Stopped": "Abandoned"}.get(self.status, self.status)
        return [(stage, "Succeeded" if number < at else here) for number, stage in enumerate(STAGES[: at + 1])]

    @property
    def summary(self) -> dict[str, Any]:
        return {
            "pipelineExecutionId": self.id,
            "status": self.status,
            "startTime": self.started,
            "lastUpdateTime": self.started,
            "sourceRevisions": [],
            "trigger": {"triggerType": "StartPipelineExecution", "triggerDetail": "arn:aws:sts::123456789012:emd"},
            "executionMode": "PARALLEL",
            "executionType": "STANDARD",
        }

    @property
    def details(self) -> dict[str, Any]:
        return {
            "pipelineName": PIPELINE,
            "pipelineVersion": 1,
            "pipelineExecutionId": self.id,
            "status": self.status,
            "artifactRevisions": [],
            "variables": [{"name": name, "resolvedValue": value} for name, value in self.variables.items()],
            "executionMode": "PARALLEL",
            "executionType": "STANDARD",
        }

    @property
    def actions(self) -> list[dict[str, Any]]:
        """The newest first."""
        return [
            {
                "pipelineExecutionId": self.id,
                "actionExecutionId": f"{self.id}-{stage}",
                "pipelineVersion": 1,
                "stageName": stage,
                "actionName": stage,
                "startTime": self.started,
                "lastUpdateTime": self.started,
                "status": status,
                "output": {"executionResult": {"externalExecutionId": f"{stage}:{self.id}"}},
            }
            for stage, status in reversed(self.stages)
        ]


class Pipeline:
    """The executions, the newest first."""

    def __init__(self) -> None:
        self.exists = False
        self.page = 100
        self.executions: list[Execution] = []

    def answer(self, operation: str, body: Mapping[str, Any]) -> dict[str, Any] | Fails | None:
        """The answer to one of our operations; None for those of others."""
        ours: dict[str, Callable[[Mapping[str, Any]], dict[str, Any] | Fails]] = {
            "ListPipelineExecutions": self._list,
            "GetPipelineExecution": self._get,
            "GetPipelineState": self._state,
            "ListActionExecutions": self._actions,
        }
        if operation not in ours:
            return None
        name = body.get("pipelineName", body.get("name"))
        if not self.exists or name != PIPELINE:
            text = f"Account '123456789012' does not have a pipeline with name '{name}'"
            return Fails("PipelineNotFoundException", text)
        return ours[operation](body)

    def _list(self, body: Mapping[str, Any]) -> dict[str, Any] | Fails:
        return self._page("pipelineExecutionSummaries", [one.summary for one in self.executions], body)

    def _get(self, body: Mapping[str, Any]) -> dict[str, Any] | Fails:
        id = body.get("pipelineExecutionId")
        found = next((one for one in self.executions if one.id == id), None)
        if found is None:
            text = f"The pipeline execution {id} does not exist"
            return Fails("PipelineExecutionNotFoundException", text)
        return {"pipelineExecution": found.details}

    def _state(self, body: Mapping[str, Any]) -> dict[str, Any]:
        states = []
        for stage in STAGES:
            reached = [(one, dict(one.stages)[stage]) for one in self.executions if stage in dict(one.stages)]
            state: dict[str, Any] = {"stageName": stage, "inboundTransitionState": {"enabled": True}}
            action: dict[str, Any] = {"actionName": stage}
            if reached:
                one, status = reached[0]
                state["latestExecution"] = {"pipelineExecutionId": one.id, "status": status}
                action["latestExecution"] = {"status": status, "lastStatusChange": one.started}
            states.append(state | {"actionStates": [action]})
        return {"pipelineName": PIPELINE, "pipelineVersion": 1, "stageStates": states}

    def _actions(self, body: Mapping[str, Any]) -> dict[str, Any] | Fails:
        id = (body.get("filter") or {}).get("pipelineExecutionId")
        rows = [row for one in self.executions if id in {None, one.id} for row in one.actions]
        return self._page("actionExecutionDetails", rows, body)

    def _page(self, key: str, rows: list[dict[str, Any]], body: Mapping[str, Any]) -> dict[str, Any] | Fails:
        token = body.get("nextToken", "")
        start = int(token.removeprefix("page-")) if token.startswith("page-") else 0
        if token and not start:
            return Fails("InvalidNextTokenException", "The next token was specified in an invalid format.")
        end = start + min(self.page, body.get("maxResults") or self.page)
        more = {"nextToken": f"page-{end}"} if end < len(rows) else {}
        return {key: rows[start:end], **more}
