"""Destroy: delete a stack, as it was last deployed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from infraforge_runner.infraforge.plan import AvailableTools
from infraforge_runner.infraforge.presets import HyperPodPreset, OverrideValue
from infraforge_runner.infraforge.rendering import RenderedStack, overrides_region
from infraforge_runner.infraforge.stack_records import StackRecord
from infraforge_runner.jobs.directory import JobDirectory
from infraforge_runner.jobs.model import JobRequest, JobSpec
from infraforge_runner.kinds.dry_run import DryRun
from infraforge_runner.kinds.kind import JobRun, RunResult, SubmissionContext
from infraforge_runner.kinds.live_run import LiveRun
from infraforge_runner.kinds.stack_kind import StackKind
from pipeline.errors import InvalidRequest


class Destroy(StackKind):
    name = "destroy"

    def own_script(self, preset: HyperPodPreset) -> str | None:
        return preset.scripts.destroy

    def resolve(
        self,
        request: JobRequest,
        rendered: RenderedStack,
        overrides: dict[str, OverrideValue],
        context: SubmissionContext,
    ) -> RenderedStack:
        """Return what the stack was deployed with, and where: the preset may have changed since.

        Raises InvalidRequest where a request that leaves the region open fits several stacks, or lacks `confirm`.
        """
        region_is_open = not overrides_region(context.presets[request.preset], overrides)
        by_region = {
            stack.region: stack for stack in context.stacks.list_all() if stack.stack_name == rendered.stack_name
        }
        if region_is_open and len(by_region) > 1 and rendered.region not in by_region:
            raise InvalidRequest(f"{rendered.stack_name} stands in {' and '.join(by_region)}: say in which region.")
        stack = by_region.get(rendered.region, next(iter(by_region.values()), None) if region_is_open else None)
        deployed = rendered if stack is None else stack.rendered
        if not request.dry_run and request.confirm != deployed.stack_name:
            raise InvalidRequest(
                f'confirm: expected "{deployed.stack_name}", the name of the stack that this destroys for good.'
            )
        return deployed

    def create_run(self, directory: JobDirectory, spec: JobSpec, environment: Mapping[str, str]) -> JobRun:
        return DestroyDryRun(directory, spec, environment) if spec.dry_run else DestroyRun(directory, spec)


class DestroyRun(LiveRun):
    def record_at_start(self, record: StackRecord, previous: StackRecord | None) -> StackRecord | None:
        """A stack of which there is no record gets none."""
        return None if previous is None else msgspec.structs.replace(previous, state="uncertain")

    async def finish_success(self) -> RunResult:
        self.remove_record()
        return RunResult()


class DestroyDryRun(DryRun):
    names_heading = "Names that would go:"

    def plan_diff(self, stack: StackRecord | None, config: dict[str, Any]) -> list[str]:
        return []

    def check_script(self, tools: AvailableTools) -> Path | None:
        return None

    def unchecked(self) -> Iterator[str]:
        return iter(())
