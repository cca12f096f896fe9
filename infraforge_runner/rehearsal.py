"""A dry run: all of a live one that changes nothing, and a plan of the rest."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from infraforge_runner import stack, workspace
from infraforge_runner.directory import JobDirectory
from infraforge_runner.job import Spec
from infraforge_runner.plan import Machine, Plan, Run, check_script, make_plan, unchecked
from infraforge_runner.presets import SCRIPTS
from infraforge_runner.rendering import AVAILABILITY_ZONE, needs_place, place
from infraforge_runner.script import argv_of
from infraforge_runner.stacks import Stacks
from pipeline.errors import Unavailable


class Rehearsal:
    """One dry run. `environment` is what the live run's script would get."""

    def __init__(self, directory: JobDirectory, spec: Spec, environment: Mapping[str, str]) -> None:
        self.command = shlex.join(argv_of(directory.script if spec.own_script else SCRIPTS / f"{spec.action}.sh"))
        self._directory = directory
        self._spec = spec
        self._environment = environment
        self._checkout = None if spec.checkout is None else Path(spec.checkout)
        self._stands = ""  # a sentence about the stack as it is, once AWS was asked
        self._unknown: list[str] = []  # sentences about what AWS did not say

    async def plan(self) -> tuple[Plan, Sequence[str] | None]:
        """The plan, and what has to be run to check it; None where nothing can. Raises ForgelineError, OSError."""
        spec = self._spec
        machine = await self._look_around()
        config = spec.config
        if machine.has_credentials:
            await self._look_at_stack()
            config = await self._place()
        standing = Stacks.of(self._directory.path).get(spec.region, spec.stack_name)
        if standing is not None and standing.state == "uncertain":
            self._unknown.append(f"What the last job at the stack {spec.stack_name} leaves: that has not succeeded.")
        live = Run(self.command, self._environment)
        plan = make_plan(spec, live, config, standing, [*unchecked(spec, machine), *self._unknown])
        script = check_script(spec, machine)
        if script is None:
            return plan, None
        workspace.fill(self._directory.work, config, self._checkout)
        return plan, argv_of(script)

    def spell_out(self, plan: Plan) -> Iterator[str]:
        """The plan as lines of a log. The whole configuration is in the plan; here stands what would be another."""
        yield f"Dry run of {self._spec.action} {self._spec.preset_name}: nothing is changed."
        if self._stands:
            yield self._stands
        yield f"Command: {plan.command}"
        yield "Environment:"
        yield from (f"  {name}={value}" for name, value in plan.environment.items())
        yield "Names that would go:" if self._spec.action == "destroy" else "Names that would be there:"
        yield from (f"  {name}" for name in plan.names)
        if plan.diff:
            yield "Against what was applied last:"
            yield from (f"  {line}" for line in plan.diff)
        if plan.unchecked:
            yield "Not checked:"
            yield from (f"  {line}" for line in plan.unchecked)

    async def _look_around(self) -> Machine:
        path = self._environment.get("PATH")
        return Machine(
            checkout=self._checkout_problem(),
            has_cdk=shutil.which("cdk", path=path) is not None,
            has_node=shutil.which("node", path=path) is not None,
            has_credentials=await stack.has_credentials(),
        )

    def _checkout_problem(self) -> str | None:
        try:
            workspace.check_checkout(self._checkout)
        except Unavailable as error:
            return error.message
        return None

    async def _look_at_stack(self) -> None:
        region, name = self._spec.region, self._spec.stack_name
        try:
            state = await stack.status(region, name)
        except stack.StackUnknown as error:
            self._unknown.append(str(error))
        else:
            self._stands = f"The stack {name} is {'not there' if state is None else f'there, as {state}'}, in {region}."

    async def _place(self) -> dict[str, Any]:
        """The configuration with its zone in place, or as it is."""
        zone, config = self._spec.variables.get(AVAILABILITY_ZONE), self._spec.config
        if not zone or not needs_place(config):
            return config
        try:
            return place(config, zone, await stack.zones(self._spec.region))
        except stack.StackUnknown as error:
            self._unknown.append(f"{error} The configuration has the preset's own zone, not {zone}.")
            return config


def as_told(plan: Plan) -> dict[str, Any]:
    told: dict[str, Any] = msgspec.to_builtins(plan)
    return told
