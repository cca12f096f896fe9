"""What a live job has to do with AWS: its workspace and its stack's record before its script, its outcome after it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog

from infraforge_runner import stack, workspace
from infraforge_runner.cdk import CdkProgress
from infraforge_runner.directory import JobDirectory
from infraforge_runner.job import Spec
from infraforge_runner.presets import SCRIPTS
from infraforge_runner.rendering import AVAILABILITY_ZONE, needs_place, place
from infraforge_runner.script import argv_of
from infraforge_runner.stacks import Stack, Stacks
from pipeline.errors import Unavailable

log = structlog.get_logger(__name__)

MAX_FAILURES = 5  # that an error names


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known when the script has ended: the stack's outputs, and words about what failed or still goes on."""

    outputs: dict[str, str] = field(default_factory=dict)
    words: str = ""


class Deployment:
    """One live deploy or destroy."""

    def __init__(self, directory: JobDirectory, spec: Spec) -> None:
        self.cdk = CdkProgress()
        self._directory = directory
        self._spec = spec
        self._config = spec.config
        self._checkout = None if spec.checkout is None else Path(spec.checkout)
        self._stacks = Stacks.of(directory.path)
        self._began = datetime.now(UTC)
        # Asked while the script runs: where there are none, finding that out can take a second.
        self._can_ask = asyncio.create_task(stack.has_credentials(), name="look for credentials")

    async def prepare(self) -> Sequence[str]:
        """Fills the workspace, and says what to run. Raises ForgelineError, OSError."""
        spec = self._spec
        zone = spec.variables.get(AVAILABILITY_ZONE)
        if zone and needs_place(self._config):
            try:
                self._config = place(self._config, zone, await stack.zones(spec.region))
            except stack.StackUnknown as error:
                raise Unavailable(
                    f"{error} The zone {zone} has a number there, which the configuration needs."
                ) from error
        checkout = None if spec.own_script else workspace.check_checkout(self._checkout)
        workspace.fill(self._directory.work, self._config, checkout)
        self._record(standing=False)
        return argv_of(self._directory.script if spec.own_script else SCRIPTS / f"{spec.action}.sh")

    async def conclude(self, code: int | None) -> Findings:
        """What there is to say, once the script has ended with this status; None: it was stopped."""
        if code is None:
            return Findings(words=await self._still_doing())
        if code != 0:
            return Findings(words=await self._why())
        outputs = await self._outputs()
        if self._spec.action == "destroy":
            self._stacks.remove(self._spec.region, self._spec.stack_name)
            return Findings()
        self._record(standing=True, outputs=outputs)
        return Findings(outputs)

    async def _outputs(self) -> dict[str, str]:
        """As CloudFormation tells them; else as the CDK printed them."""
        if self._spec.action == "deploy" and await self._can_ask:
            try:
                return await stack.outputs(self._spec.region, self._spec.stack_name)
            except stack.StackUnknown as error:
                log.warning("no outputs", reason=str(error))
        return self.cdk.outputs

    async def _why(self) -> str:
        """Which resources failed, and for what reason; a stack of which nothing was left is forgotten."""
        found = self.cdk.failed
        if await self._can_ask:
            try:
                region, name = self._spec.region, self._spec.stack_name
                found = await stack.failures(region, name, self._began) or found
                if await stack.status(region, name) is None:
                    self._stacks.remove(region, name)
            except stack.StackUnknown as error:
                log.warning("no reason", reason=str(error))
        return " ".join(
            f"{failure}" if str(failure).endswith(".") else f"{failure}." for failure in found[:MAX_FAILURES]
        )

    async def _still_doing(self) -> str:
        if not await self._can_ask:
            return ""
        return await stack.still_doing(self._spec.region, self._spec.stack_name)

    def _record(self, *, standing: bool, outputs: dict[str, str] | None = None) -> None:
        """Keeps what a destroy of this stack will need."""
        spec = self._spec
        before = self._stacks.get(spec.region, spec.stack_name)
        if spec.action == "destroy":
            if before is not None:
                self._stacks.put(msgspec.structs.replace(before, state="uncertain"))
            return
        since, known = (None, {}) if before is None else (before.since, before.outputs)
        self._stacks.put(
            Stack(
                stack_name=spec.stack_name,
                region=spec.region,
                preset=spec.preset_name,
                job_id=spec.job_id,
                since=since or (datetime.now(UTC).isoformat() if standing else None),
                state="standing" if standing else "uncertain",
                config=self._config,
                variables=spec.variables,
                outputs=known if outputs is None else outputs,
                serves=spec.preset.serves,
            )
        )
