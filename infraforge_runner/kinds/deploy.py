"""Deploy: create or update the stack of a HyperPod preset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from infraforge_runner.infraforge.plan import (
    AvailableTools,
    diff_from_applied,
    list_deploy_unchecked,
    select_check_script,
)
from infraforge_runner.infraforge.presets import HyperPodPreset, OverrideValue
from infraforge_runner.infraforge.rendering import RenderedStack
from infraforge_runner.infraforge.stack_records import StackRecord
from infraforge_runner.jobs.directory import JobDirectory
from infraforge_runner.jobs.model import JobRequest, JobSpec
from infraforge_runner.kinds.dry_run import DryRun
from infraforge_runner.kinds.kind import JobRun, RunResult, SubmissionContext
from infraforge_runner.kinds.live_run import LiveRun
from infraforge_runner.kinds.stack_kind import StackKind
from pipeline.errors import StackLocked


class Deploy(StackKind):
    name = "deploy"

    def own_script(self, preset: HyperPodPreset) -> str | None:
        return preset.scripts.deploy

    def resolve(
        self,
        request: JobRequest,
        rendered: RenderedStack,
        overrides: dict[str, OverrideValue],
        context: SubmissionContext,
    ) -> RenderedStack:
        """Reject names that another stack has: AWS would say so after half an hour. Raises StackLocked."""
        others: list[JobSpec | StackRecord] = [job.spec for job in context.unfinished_jobs if job.held_stack]
        for other in [*others, *context.stacks.list_all()]:
            conflicting_name = next((name for name in rendered.names if name in other.names), None)
            if conflicting_name and other.region == rendered.region and other.stack_name != rendered.stack_name:
                raise StackLocked(
                    f"The {conflicting_name} would be made twice: it is part of the stack {other.stack_name}"
                    f" in {other.region}, by job {other.job_id}. Choose another name, or destroy that stack first."
                )
        return rendered

    def create_run(self, directory: JobDirectory, spec: JobSpec, environment: Mapping[str, str]) -> JobRun:
        return DeployDryRun(directory, spec, environment) if spec.dry_run else DeployRun(directory, spec)


class DeployRun(LiveRun):
    def record_at_start(self, record: StackRecord, previous: StackRecord | None) -> StackRecord:
        """A stack that was never deployed with success is known by what is about to be deployed."""
        if previous is None or previous.since is None:
            return record
        return msgspec.structs.replace(previous, state="uncertain")

    async def finish_success(self) -> RunResult:
        outputs = await self.read_outputs()
        self.stacks.save(self.make_record("standing", outputs))
        return RunResult(outputs)


class DeployDryRun(DryRun):
    names_heading = "Names that would be there:"

    def plan_diff(self, stack: StackRecord | None, config: dict[str, Any]) -> list[str]:
        return diff_from_applied(stack, config)

    def check_script(self, tools: AvailableTools) -> Path | None:
        return select_check_script(self.spec, tools)

    def unchecked(self) -> Iterator[str]:
        return list_deploy_unchecked(self.spec)
