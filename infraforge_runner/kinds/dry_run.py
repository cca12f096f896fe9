"""A dry run: all of a live one that changes nothing, and a plan of the rest."""

from __future__ import annotations

import shlex
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from infraforge_runner.infraforge import cloudformation, workspace
from infraforge_runner.infraforge.plan import AvailableTools, LiveCommand, Plan, build_plan, list_unchecked
from infraforge_runner.infraforge.presets import SCRIPTS_FOLDER
from infraforge_runner.infraforge.rendering import ZONE_VARIABLE, has_zonal_forges, place_in_zone
from infraforge_runner.infraforge.stack_records import StackRecord, StackStore
from infraforge_runner.jobs.directory import JobDirectory
from infraforge_runner.jobs.model import JobSpec, Progress
from infraforge_runner.jobs.script import script_argv
from infraforge_runner.kinds.kind import Preparation, RunResult
from pipeline.errors import Unavailable


class DryRun(ABC):
    """One dry run of a deploy or a destroy; the two differ in the abstract methods.

    `environment` is what the live run's script would get.
    """

    names_heading: ClassVar[str]
    """The line of the log above the names in the account."""

    prepare_span = "plan"
    finish_span = None
    phase = "starting"
    progress: Progress | None = None

    def __init__(self, directory: JobDirectory, spec: JobSpec, environment: Mapping[str, str]) -> None:
        script = directory.script if spec.own_script else SCRIPTS_FOLDER / f"{spec.action}.sh"
        self.command = shlex.join(script_argv(script))
        self._directory = directory
        self.spec = spec
        self._environment = environment
        self._checkout = None if spec.checkout is None else Path(spec.checkout)
        self._plan: Plan | None = None
        self._stack_sentence = ""  # about the stack's present state, once AWS has answered
        self._query_failures: list[str] = []  # sentences about what AWS did not answer

    @abstractmethod
    def plan_diff(self, stack: StackRecord | None, config: dict[str, Any]) -> list[str]:
        """The plan's lines of what changes, against the configuration that was applied last."""

    @abstractmethod
    def check_script(self, tools: AvailableTools) -> Path | None:
        """The script that checks the plan; its exit status is the job's. None: nothing can check it."""

    @abstractmethod
    def unchecked(self) -> Iterator[str]:
        """A sentence for each thing that only this kind's live run will show."""

    async def prepare(self) -> Preparation:
        """Make the plan, and the workspace of what checks it. Raises ForgelineError, OSError."""
        spec = self.spec
        tools = await self._inspect_machine()
        config = spec.config
        if tools.has_credentials:
            await self._read_stack_status()
            config = await self._place_zone()
        stack = StackStore.for_job(self._directory.path).get(spec.region, spec.stack_name)
        if stack is not None and stack.state == "uncertain":
            self._query_failures.append(
                f"What the last job at the stack {spec.stack_name} leaves: that has not succeeded."
            )
        self._plan = build_plan(
            spec,
            LiveCommand(self.command, self._environment),
            config,
            self.plan_diff(stack, config),
            [*list_unchecked(spec, tools), *self.unchecked(), *self._query_failures],
        )
        log_text = "".join(f"{line}\n" for line in self._plan_lines(self._plan))
        script = self.check_script(tools)
        if script is None:
            return Preparation(None, log_text)
        workspace.populate(self._directory.work, config, self._checkout)
        return Preparation(script_argv(script), log_text)

    def read_output(self, data: bytes) -> bool:
        return False

    async def finish(self, exit_code: int | None) -> RunResult:
        plan: dict[str, Any] = msgspec.to_builtins(self._plan)
        return RunResult(plan=plan)

    def _plan_lines(self, plan: Plan) -> Iterator[str]:
        """The plan as lines of the log: of the configuration, only what would change."""
        yield f"Dry run of {self.spec.action} {self.spec.preset_name}: nothing is changed."
        if self._stack_sentence:
            yield self._stack_sentence
        yield f"Command: {plan.command}"
        yield "Environment:"
        yield from (f"  {name}={value}" for name, value in plan.environment.items())
        yield self.names_heading
        yield from (f"  {name}" for name in plan.names)
        if plan.diff:
            yield "Against what was applied last:"
            yield from (f"  {line}" for line in plan.diff)
        if plan.unchecked:
            yield "Not checked:"
            yield from (f"  {line}" for line in plan.unchecked)

    async def _inspect_machine(self) -> AvailableTools:
        path = self._environment.get("PATH")
        return AvailableTools(
            checkout_problem=self._checkout_problem(),
            has_cdk=shutil.which("cdk", path=path) is not None,
            has_node=shutil.which("node", path=path) is not None,
            has_credentials=await cloudformation.has_credentials(),
        )

    def _checkout_problem(self) -> str | None:
        try:
            workspace.require_checkout(self._checkout)
        except Unavailable as error:
            return error.message
        return None

    async def _read_stack_status(self) -> None:
        region, name = self.spec.region, self.spec.stack_name
        try:
            status = await cloudformation.get_stack_status(region, name)
        except cloudformation.AwsQueryError as error:
            self._query_failures.append(str(error))
        else:
            presence = "not there" if status is None else f"there, as {status}"
            self._stack_sentence = f"The stack {name} is {presence}, in {region}."

    async def _place_zone(self) -> dict[str, Any]:
        """The configuration with the zone's index filled in, or unchanged."""
        zone, config = self.spec.variables.get(ZONE_VARIABLE), self.spec.config
        if not zone or not has_zonal_forges(config):
            return config
        try:
            return place_in_zone(config, zone, await cloudformation.list_availability_zones(self.spec.region))
        except cloudformation.AwsQueryError as error:
            self._query_failures.append(f"{error} The configuration has the preset's own zone, not {zone}.")
            return config
