"""Periodic discovery of what EMD has deployed in a region, and of what it is deploying.

As EMD itself does it: from its CloudFormation stacks and the executions of its CodePipeline.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

import structlog

from pipeline.aws.clients import AwsClients
from pipeline.aws.errors import to_forgeline_error
from pipeline.errors import ForgelineError, Unavailable
from pipeline.providers.emd.deployments import NOT_DEPLOYED, PipelineExecutions, read_stacks
from pipeline.stage import Deployment

log = structlog.get_logger(__name__)

REFRESH_SECONDS = 30.0  # between two refreshes
MAX_REFRESH_SECONDS = 300.0  # between two refreshes, if they fail
RETRY_PAUSE_SECONDS = 1.0  # after a failed refresh, requests get its error for this long
REFRESH_TIMEOUT_SECONDS = 20.0  # for one refresh, and so the longest that a request waits for one
KEEP_SECONDS = 600.0  # how long a region is refreshed after the last request, if no preset names it


@dataclass(frozen=True, slots=True)
class RegionSnapshot:
    """The result of a refresh. `executions` is None if EMD has not been set up; `warning` is what could not be read."""

    stacks: Mapping[str, Deployment] = field(default_factory=dict)
    executions: Mapping[str, Deployment] | None = field(default_factory=dict)
    warning: str | None = None

    def get(self, key: str) -> Deployment:
        """The deployment of `<model id>/<tag>`."""
        stack, execution = self.stacks.get(key), (self.executions or {}).get(key)
        if stack is None or (stack.status == "failed" and execution is not None and execution.status == "in_progress"):
            deployment = execution or NOT_DEPLOYED
        else:
            deployment = stack
        if self.executions is None and deployment is NOT_DEPLOYED:
            return replace(deployment, reason="EMD has not been set up in this region yet: emd bootstrap comes first")
        if self.warning and deployment.status == "not_deployed":
            return replace(deployment, reason=self.warning)
        return deployment


@dataclass(frozen=True, slots=True)
class RegionState:
    """The last snapshot, None before the first; and the error of the last refresh, None if it succeeded."""

    snapshot: RegionSnapshot | None = None
    error: Unavailable | None = None

    def get(self, key: str) -> Deployment:
        """What is known of `<model id>/<tag>`, and why it may be out of date."""
        if self.snapshot is None:
            return Deployment("unknown", reason=self.error.message if self.error else "it is being looked up")
        deployment = self.snapshot.get(key)
        if self.error is None:
            return deployment
        note = f"this is how it was when it could last be looked up: {self.error.message}"
        return replace(deployment, reason=f"{deployment.reason}; {note}" if deployment.reason else note)


class RegionDeployments:
    """The deployments of one region, refreshed by a task of its own.

    The task ends by itself when no preset names the region (`is_needed`) and nobody has used it for a while.
    `on_refresh` is called after each refresh with the state before it.
    """

    def __init__(
        self,
        clients: AwsClients,
        region: str | None,
        is_needed: Callable[[], bool],
        on_refresh: Callable[[RegionState], None],
    ) -> None:
        self.is_stopped = False
        self._clients = clients
        self._region = region
        self._label = region or "the default region"
        self._is_needed = is_needed
        self._on_refresh = on_refresh
        self._executions = PipelineExecutions(self._label)
        self._state = RegionState()
        self._consecutive_failures = 0
        self._last_used = self._last_refresh = time.monotonic()
        # Refreshes are numbered from 1; one runs while `_started` is more than `_finished`.
        self._started = self._finished = self._requested = 0
        self._changed = asyncio.Condition()
        self._task = asyncio.create_task(self._run(), name=f"EMD deployments in {self._label}")

    def get(self, key: str) -> Deployment:
        """What is known now of `<model id>/<tag>`, without waiting."""
        return self._state.get(key)

    def touch(self) -> None:
        """Keep the task alive for another `KEEP_SECONDS`."""
        self._last_used = time.monotonic()

    async def wait_until_known(self) -> None:
        """Wait for the first snapshot. If the last refresh failed a while ago, request another.

        Raises the error of the refresh if there is no snapshot after it.
        """
        may_retry = self._state.error is None or time.monotonic() - self._last_refresh >= RETRY_PAUSE_SECONDS
        if self._state.snapshot is not None:
            if self._state.error is not None and may_retry:
                await self._request(self._finished + 1)
            return
        if may_retry:
            await self._wait_for(self._finished + 1)  # the running refresh, or else the next
        if self._state.snapshot is None and self._state.error is not None:
            raise self._state.error.without_traceback()

    async def refresh(self) -> None:
        """Wait for a refresh that starts now. If it fails, the last snapshot stays."""
        await self._wait_for(self._started + 1)

    async def close(self) -> None:
        """Cancel the task."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._mark_stopped()  # the task does it only if it had started

    async def _request(self, number: int) -> None:
        async with self._changed:
            self._requested = max(self._requested, number)
            self._changed.notify_all()

    async def _wait_for(self, number: int) -> None:
        await self._request(number)
        async with self._changed:
            await self._changed.wait_for(lambda: self._finished >= number or self.is_stopped)

    async def _mark_stopped(self) -> None:
        async with self._changed:
            self.is_stopped = True
            self._changed.notify_all()

    async def _run(self) -> None:
        try:
            while self._is_needed() or time.monotonic() - self._last_used < KEEP_SECONDS:
                self._started += 1
                await self._refresh()
                async with self._changed:
                    self._finished += 1
                    self._changed.notify_all()
                    pause = min(REFRESH_SECONDS * 2**self._consecutive_failures, MAX_REFRESH_SECONDS)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await self._changed.wait_for(lambda: self._requested > self._finished)
        finally:
            await self._mark_stopped()

    async def _refresh(self) -> None:
        before = self._state
        try:
            async with asyncio.timeout(REFRESH_TIMEOUT_SECONDS):
                self._state = RegionState(await self._read())
        except TimeoutError:
            sentence = f"AWS did not say within {REFRESH_TIMEOUT_SECONDS:g} s what EMD has deployed in {self._label}."
            self._state = replace(before, error=Unavailable(sentence))
        except Exception as cause:  # whatever it is, the next refresh may succeed
            if not isinstance(cause, ForgelineError):
                log.exception("emd_discovery_crashed", region=self._label)
            translated = to_forgeline_error(cause, f"EMD in {self._label}")
            self._state = replace(before, error=_as_unavailable(translated, self._label))
        error = self._state.error
        self._consecutive_failures = min(self._consecutive_failures + 1, 10) if error else 0
        self._last_refresh = time.monotonic()
        if error and not before.error:
            log.warning("emd_discovery_failed", region=self._label, error=error.message)
        self._on_refresh(before)

    async def _read(self) -> RegionSnapshot:
        """If only CodePipeline can't be read, the stacks count: a deployed model stays usable."""
        cloudformation = await self._clients.get("cloudformation", self._region)
        codepipeline = await self._clients.get("codepipeline", self._region)
        stacks, executions = await asyncio.gather(
            read_stacks(cloudformation, self._label), self._executions.read(codepipeline), return_exceptions=True
        )
        if isinstance(stacks, BaseException):
            raise stacks
        if not isinstance(executions, BaseException):
            return RegionSnapshot(stacks, executions)
        if not isinstance(executions, ForgelineError):
            raise executions
        last_executions = self._state.snapshot.executions if self._state.snapshot else {}
        warning = f"whether it is being deployed can't be told: {executions.message}"
        return RegionSnapshot(stacks, last_executions, warning)


def _as_unavailable(error: ForgelineError, region: str) -> Unavailable:
    """Whatever kept discovery from finding a model is not the fault of the request for that model.

    A retryable error waits at least `RETRY_PAUSE_SECONDS`, so that AWS is not called again at once.
    """
    sentence = error.message
    if not isinstance(error, Unavailable):
        sentence = f"What EMD has deployed in {region} can't be looked up: {sentence}"
    retry_after = max(error.retry_after or RETRY_PAUSE_SECONDS, RETRY_PAUSE_SECONDS)
    return Unavailable(
        sentence, retry_after=retry_after if error.retryable else error.retry_after, retryable=error.retryable
    )
