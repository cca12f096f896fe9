"""EMD's pipeline in CodePipeline: the operations that moto lacks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.aws.scripted_responses import ErrorResponse

PIPELINE = "EMD-Env-Pipeline"
STAGES = ("Source", "Build", "Deploy")


@dataclass
class Execution:
    """One execution. `stage` is the one that it is in, or in which it ended."""

    variables: Mapping[str, str]
    status: str
    stage: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started: float = field(default_factory=time.time)

    @property
    def has_ended(self) -> bool:
        return self.status not in {"InProgress", "Stopping"}

    @property
    def stages(self) -> list[tuple[str, str]]:
        """The stages that it has reached, each with its status."""
        current = STAGES.index(self.stage)
        status = {"Stopping": "InProgress", "Stopped": "Abandoned"}.get(self.status, self.status)
        return [
            (stage, "Succeeded" if index < current else status) for index, stage in enumerate(STAGES[: current + 1])
        ]

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
        """The actions, newest first."""
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


class CodePipeline:
    """The pipeline with its executions, newest first."""

    def __init__(self) -> None:
        self.exists = False
        self.page_size = 100
        self.executions: list[Execution] = []

    def respond(self, operation: str, body: Mapping[str, Any]) -> dict[str, Any] | ErrorResponse | None:
        """The response to an operation; None for operations that moto implements."""
        handlers: dict[str, Callable[[Mapping[str, Any]], dict[str, Any] | ErrorResponse]] = {
            "ListPipelineExecutions": self._list_executions,
            "GetPipelineExecution": self._get_execution,
            "GetPipelineState": self._get_state,
            "ListActionExecutions": self._list_actions,
        }
        if operation not in handlers:
            return None
        name = body.get("pipelineName", body.get("name"))
        if not self.exists or name != PIPELINE:
            text = f"Account '123456789012' does not have a pipeline with name '{name}'"
            return ErrorResponse("PipelineNotFoundException", text)
        return handlers[operation](body)

    def _list_executions(self, body: Mapping[str, Any]) -> dict[str, Any] | ErrorResponse:
        return self._page("pipelineExecutionSummaries", [execution.summary for execution in self.executions], body)

    def _get_execution(self, body: Mapping[str, Any]) -> dict[str, Any] | ErrorResponse:
        id = body.get("pipelineExecutionId")
        execution = next((item for item in self.executions if item.id == id), None)
        if execution is None:
            text = f"The pipeline execution {id} does not exist"
            return ErrorResponse("PipelineExecutionNotFoundException", text)
        return {"pipelineExecution": execution.details}

    def _get_state(self, body: Mapping[str, Any]) -> dict[str, Any]:
        states = []
        for stage in STAGES:
            reached = [(item, dict(item.stages)[stage]) for item in self.executions if stage in dict(item.stages)]
            state: dict[str, Any] = {"stageName": stage, "inboundTransitionState": {"enabled": True}}
            action: dict[str, Any] = {"actionName": stage}
            if reached:
                execution, status = reached[0]
                state["latestExecution"] = {"pipelineExecutionId": execution.id, "status": status}
                action["latestExecution"] = {"status": status, "lastStatusChange": execution.started}
            states.append(state | {"actionStates": [action]})
        return {"pipelineName": PIPELINE, "pipelineVersion": 1, "stageStates": states}

    def _list_actions(self, body: Mapping[str, Any]) -> dict[str, Any] | ErrorResponse:
        id = (body.get("filter") or {}).get("pipelineExecutionId")
        rows = [row for item in self.executions if id in {None, item.id} for row in item.actions]
        return self._page("actionExecutionDetails", rows, body)

    def _page(self, key: str, rows: list[dict[str, Any]], body: Mapping[str, Any]) -> dict[str, Any] | ErrorResponse:
        token = body.get("nextToken", "")
        start = int(token.removeprefix("page-")) if token.startswith("page-") else 0
        if token and not start:
            return ErrorResponse("InvalidNextTokenException", "The next token was specified in an invalid format.")
        end = start + min(self.page_size, body.get("maxResults") or self.page_size)
        more = {"nextToken": f"page-{end}"} if end < len(rows) else {}
        return {key: rows[start:end], **more}
