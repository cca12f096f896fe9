"""A live deploy or destroy: its workspace and its stack's record before the script, AWS's account of it afterwards."""

from __future__ import annotations

import asyncio
import shlex
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import structlog

from infraforge_runner.infraforge import cloudformation, workspace
from infraforge_runner.infraforge.cdk import CdkOutputParser
from infraforge_runner.infraforge.presets import SCRIPTS_FOLDER
from infraforge_runner.infraforge.rendering import ZONE_VARIABLE, has_zonal_forges, place_in_zone
from infraforge_runner.infraforge.stack_records import StackRecord, StackStore
from infraforge_runner.jobs.directory import JobDirectory
from infraforge_runner.jobs.model import JobSpec, Progress
from infraforge_runner.jobs.script import script_argv
from infraforge_runner.kinds.kind import Preparation, RunResult
from pipeline.errors import Unavailable

log = structlog.get_logger(__name__)

MAX_FAILURES = 5  # that an error names


class LiveRun(ABC):
    """One live run of a deploy or a destroy; the two differ in the abstract methods."""

    prepare_span = "render"
    finish_span = "read stack"

    def __init__(self, directory: JobDirectory, spec: JobSpec) -> None:
        self.command = ""
        self.stacks = StackStore.for_job(directory.path)
        self._directory = directory
        self._spec = spec
        self._config = spec.config
        self._checkout = None if spec.checkout is None else Path(spec.checkout)
        self._cdk = CdkOutputParser()
        self._started_at = datetime.now(UTC)
        # A task, so that it runs beside the script: where there are no credentials, finding that out can take a second.
        self._has_credentials = asyncio.create_task(cloudformation.has_credentials(), name="look for credentials")

    @abstractmethod
    def record_at_start(self, record: StackRecord, previous: StackRecord | None) -> StackRecord | None:
        """The stack's record while the script runs: `record` is of this job, `previous` of the last one.

        None: there is no record, and none is made.
        """

    @abstractmethod
    async def finish_success(self) -> RunResult:
        """Update the stack's record after exit status 0. Raises OSError."""

    @property
    def phase(self) -> str:
        return self._cdk.phase

    @property
    def progress(self) -> Progress | None:
        return self._cdk.progress

    def read_output(self, data: bytes) -> bool:
        """Read a piece of the script's output; return whether phase or progress changed."""
        return self._cdk.feed(data)

    async def prepare(self) -> Preparation:
        """Fill the workspace, and record that the stack is about to change. Raises ForgelineError, OSError."""
        spec = self._spec
        zone = spec.variables.get(ZONE_VARIABLE)
        if zone and has_zonal_forges(self._config):
            try:
                self._config = place_in_zone(
                    self._config, zone, await cloudformation.list_availability_zones(spec.region)
                )
            except cloudformation.AwsQueryError as error:
                raise Unavailable(
                    f"{error} The zone {zone} has a number there, which the configuration needs."
                ) from error
        checkout = None if spec.own_script else workspace.require_checkout(self._checkout)
        workspace.populate(self._directory.work, self._config, checkout)
        record = self.record_at_start(self.make_record("uncertain", {}), self._previous)
        if record is not None:
            self.stacks.save(record)
        argv = script_argv(self._directory.script if spec.own_script else SCRIPTS_FOLDER / f"{spec.action}.sh")
        self.command = shlex.join(argv)
        return Preparation(argv)

    async def finish(self, exit_code: int | None) -> RunResult:
        """Conclude, once the script has ended. `exit_code` is None where it was stopped."""
        if exit_code == 0:
            return await self.finish_success()
        details = await (self._pending_operations() if exit_code is None else self._failure_reasons())
        await self._remove_record_if_deleted()
        return RunResult(details=details)

    async def read_outputs(self) -> dict[str, str]:
        """The stack's outputs from CloudFormation; else as the CDK printed them."""
        if await self._has_credentials:
            try:
                return (
                    await cloudformation.get_stack_outputs(self._spec.region, self._spec.stack_name)
                    or self._cdk.outputs
                )
            except cloudformation.AwsQueryError as error:
                log.warning("stack_outputs_unavailable", job_id=self._spec.job_id, error=str(error))
        return self._cdk.outputs

    def make_record(self, state: Literal["standing", "uncertain"], outputs: dict[str, str]) -> StackRecord:
        """The stack's record as of this job: what a destroy of the stack will need."""
        spec, previous = self._spec, self._previous
        now = datetime.now(UTC).isoformat() if state == "standing" else None
        return StackRecord(
            stack_name=spec.stack_name,
            region=spec.region,
            preset=spec.preset_name,
            job_id=spec.job_id,
            since=now if previous is None or previous.since is None else previous.since,
            state=state,
            config=self._config,
            variables=spec.variables,
            outputs=outputs,
            serves=spec.preset.serves,
        )

    def remove_record(self) -> None:
        """Raises OSError."""
        self.stacks.remove(self._spec.region, self._spec.stack_name)

    @property
    def _previous(self) -> StackRecord | None:
        return self.stacks.get(self._spec.region, self._spec.stack_name)

    async def _failure_reasons(self) -> str:
        """Which resources failed, and why, from CloudFormation; else what the CDK or InfraForge printed."""
        failures = self._cdk.failures
        if await self._has_credentials:
            region, stack_name = self._spec.region, self._spec.stack_name
            try:
                failures = await cloudformation.list_failed_resources(region, stack_name, self._started_at) or failures
            except cloudformation.AwsQueryError as error:
                log.warning("stack_failures_unavailable", job_id=self._spec.job_id, error=str(error))
        sentences = [str(failure) for failure in failures[:MAX_FAILURES]] or [self._cdk.error_line]
        return " ".join(text if text.endswith(".") else f"{text}." for text in sentences if text)

    async def _pending_operations(self) -> str:
        if not await self._has_credentials:
            return ""
        return await cloudformation.describe_ongoing_operation(self._spec.region, self._spec.stack_name)

    async def _remove_record_if_deleted(self) -> None:
        """A preset's own script need not make a stack of CloudFormation's, so there nothing can be concluded."""
        if self._spec.own_script or not await self._has_credentials:
            return
        try:
            if await cloudformation.get_stack_status(self._spec.region, self._spec.stack_name) is None:
                self.remove_record()
        except cloudformation.AwsQueryError as error:
            log.warning("stack_status_unavailable", job_id=self._spec.job_id, error=str(error))
