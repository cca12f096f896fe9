"""What a live job has to do with AWS: its workspace and its stack's record before its script, its outcome after it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

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
        self._begin_record()
        return argv_of(self._directory.script if spec.own_script else SCRIPTS / f"{spec.action}.sh")

    async def conclude(self, code: int | None) -> Findings:
        """What there is to say, once the script has ended with this status; None: it was stopped."""
        if code != 0:
            words = await (self._still_doing() if code is None else self._why())
            await self._forget_if_gone()
            return Findings(words=words)
        outputs = await self._outputs()
        if self._spec.action == "destroy":
            self._stacks.remove(self._spec.region, self._spec.stack_name)
            return Findings()
        self._stacks.put(self._record("standing", outputs))
        return Findings(outputs)

    async def _outputs(self) -> dict[str, str]:
        """As CloudFormation tells them; else as the CDK printed them."""
        if self._spec.action == "deploy" and await self._can_ask:
            try:
                return await stack.outputs(self._spec.region, self._spec.stack_name) or self.cdk.outputs
            except stack.StackUnknown as error:
                log.warning("no outputs", reason=str(error))
        return self.cdk.outputs

    async def _why(self) -> str:
        """Which resources failed, and for what reason; else what the CDK or InfraForge has said."""
        found = self.cdk.failed
        if await self._can_ask:
            try:
                found = await stack.failures(self._spec.region, self._spec.stack_name, self._began) or found
            except stack.StackUnknown as error:
                log.warning("no reason", reason=str(error))
        words = [str(failure) for failure in found[:MAX_FAILURES]] or [self.cdk.complaint]
        return " ".join(one if one.endswith(".") else f"{one}." for one in words if one)

    async def _still_doing(self) -> str:
        if not await self._can_ask:
            return ""
        return await stack.still_doing(self._spec.region, self._spec.stack_name)

    async def _forget_if_gone(self) -> None:
        """A stack of which nothing is left. What a preset's own script makes need not be one of CloudFormation's."""
        if self._spec.own_script or not await self._can_ask:
            return
        try:
            if await stack.status(self._spec.region, self._spec.stack_name) is None:
                self._stacks.remove(self._spec.region, self._spec.stack_name)
        except stack.StackUnknown as error:
            log.warning("whether the stack is there is not known", reason=str(error))

    def _begin_record(self) -> None:
        """From now on it is uncertain how the stack stands. What has never stood is known by what is to be deployed."""
        before = self._before
        if before is not None and (before.since is not None or self._spec.action == "destroy"):
            self._stacks.put(msgspec.structs.replace(before, state="uncertain"))
        elif self._spec.action == "deploy":
            self._stacks.put(self._record("uncertain", {}))

    @property
    def _before(self) -> Stack | None:
        return self._stacks.get(self._spec.region, self._spec.stack_name)

    def _record(self, state: Literal["standing", "uncertain"], outputs: dict[str, str]) -> Stack:
        """What a destroy of this stack will need."""
        spec, before = self._spec, self._before
        now = datetime.now(UTC).isoformat() if state == "standing" else None
        return Stack(
            stack_name=spec.stack_name,
            region=spec.region,
            preset=spec.preset_name,
            job_id=spec.job_id,
            since=now if before is None or before.since is None else before.since,
            state=state,
            config=self._config,
            variables=spec.variables,
            outputs=outputs,
            serves=spec.preset.serves,
        )
