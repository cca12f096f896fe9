"""What EMD has deployed in a region, and what is under way: looked up again and again, and told when it changes.

No provider of its own. As EMD itself does it: its CloudFormation stacks and the executions of its CodePipeline.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import structlog

from pipeline.errors import ForgelineError, Unavailable
from pipeline.providers.aws import Clients, translate
from pipeline.providers.emd_executions import Executions
from pipeline.providers.emd_stacks import NOT_DEPLOYED, Deployment, read_stacks

log = structlog.get_logger(__name__)

INTERVAL = 30.0  # seconds between two looks
SLOWEST = 300.0  # ... at most, where they fail
PAUSE = 1.0  # after a look that failed, those who ask get its error for so long
LOOK = 20.0  # what one look may take, and so the longest that a request waits for one
KEEP = 600.0  # for how long a region is looked at for one who has asked, where no preset names it


@dataclass(frozen=True, slots=True)
class Found:
    """What a look has found. `executions` is None where EMD has not been set up; `doubt` is what could not be told."""

    stacks: Mapping[str, Deployment] = field(default_factory=dict)
    executions: Mapping[str, Deployment] | None = field(default_factory=dict)
    doubt: str | None = None

    def of(self, name: str) -> Deployment:
        """How things stand with `<model id>/<tag>`."""
        stack, execution = self.stacks.get(name), (self.executions or {}).get(name)
        if stack is None or (stack.status == "failed" and execution is not None and execution.status == "in_progress"):
            found = execution or NOT_DEPLOYED
        else:
            found = stack
        if self.executions is None and found is NOT_DEPLOYED:
            return replace(found, reason="EMD has not been set up in this region yet: emd bootstrap comes first")
        return replace(found, reason=self.doubt) if self.doubt and found.status == "not_deployed" else found


class Region:
    """One region's deployments. `changed` is called after every look, with what `of` would have said before it."""

    def __init__(
        self,
        clients: Clients,
        region: str | None,
        is_wanted: Callable[[], bool],
        changed: Callable[[Callable[[str], Deployment]], None],
    ) -> None:
        self._clients = clients
        self._region = region
        self._is_wanted = is_wanted
        self._changed = changed
        self._executions = Executions(self.where)
        self._found: Found | None = None
        self._trouble: Unavailable | None = None
        self._failures = 0
        self._asked = self._looked = time.monotonic()
        self._wake = asyncio.Event()
        self._running: asyncio.Future[None] | None = None
        self._coming: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name=f"EMD deployments in {self.where}")

    @property
    def where(self) -> str:
        return self._region or "the default region"

    @property
    def is_over(self) -> bool:
        """Nobody wanted to know any more."""
        return self._task.done()

    def asked(self) -> None:
        """Somebody wants to know."""
        self._asked = time.monotonic()

    def of(self, name: str) -> Deployment:
        """What is known now of `<model id>/<tag>`."""
        return _view(self._found, self._trouble, name)

    async def known(self) -> None:
        """Returns when there is something known, and tries anew where the last look failed.

        Raises what kept it from being known.
        """
        age = time.monotonic() - self._looked
        if self._found is not None:
            if self._trouble is not None and age >= PAUSE:
                self._wake.set()
            return
        if self._trouble is None or age >= PAUSE:
            await self._wait(self._running or self._next())
        if self._found is None and self._trouble is not None:
            raise self._trouble.again()

    async def look_again(self) -> None:
        """Returns after a look that begins now. One that fails leaves what was known."""
        await self._wait(self._next())

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _next(self) -> asyncio.Future[None]:
        self._wake.set()
        return self._coming

    async def _wait(self, look: asyncio.Future[None]) -> None:
        await asyncio.wait([look, self._task], return_when=asyncio.FIRST_COMPLETED)

    async def _run(self) -> None:
        while self._is_wanted() or time.monotonic() - self._asked < KEEP:
            self._wake.clear()
            self._running, self._coming = self._coming, asyncio.get_running_loop().create_future()
            await self._look()
            self._running.set_result(None)
            self._running = None
            try:
                async with asyncio.timeout(min(INTERVAL * 2**self._failures, SLOWEST)):
                    await self._wake.wait()
            except TimeoutError:
                pass  # it is time for the next look

    async def _look(self) -> None:
        found, trouble = self._found, self._trouble
        try:
            async with asyncio.timeout(LOOK):
                self._found = await self._find()
            self._trouble = None
        except TimeoutError:
            self._trouble = Unavailable(f"AWS did not say within {LOOK:g} s what EMD has deployed in {self.where}.")
        except Exception as error:  # whatever it is, the next look may be better
            if not isinstance(error, ForgelineError):
                log.exception("EMD's deployments can't be read", region=self.where)
            self._trouble = _as_unavailable(translate(error, f"EMD in {self.where}"), self.where)
        self._failures = min(self._failures + 1, 10) if self._trouble else 0
        self._looked = time.monotonic()
        if self._trouble and not trouble:
            log.warning("EMD's deployments can't be looked up", region=self.where, error=self._trouble.message)
        self._changed(lambda name: _view(found, trouble, name))

    async def _find(self) -> Found:
        """Without CodePipeline's word the stacks still count: a deployed model stays usable."""
        clients = [await self._clients.get(service, self._region) for service in ("cloudformation", "codepipeline")]
        stacks, executions = await asyncio.gather(
            read_stacks(clients[0], self.where), self._executions.read(clients[1]), return_exceptions=True
        )
        if isinstance(stacks, BaseException):
            raise stacks
        if not isinstance(executions, BaseException):
            return Found(stacks, executions)
        if not isinstance(executions, ForgelineError):
            raise executions
        known = self._found.executions if self._found else {}
        return Found(stacks, known, f"whether it is being deployed can't be told: {executions.message}")


def _view(found: Found | None, trouble: Unavailable | None, name: str) -> Deployment:
    if found is None:
        return Deployment("unknown", reason=trouble.message if trouble else "it is being looked up")
    known = found.of(name)
    if trouble is None:
        return known
    doubt = f"this is how it was when it could last be looked up: {trouble.message}"
    return replace(known, reason=f"{known.reason}; {doubt}" if known.reason else doubt)


def _as_unavailable(error: ForgelineError, where: str) -> Unavailable:
    """No failure to find a model is the fault of the request for it. One that may pass is not asked of AWS at once."""
    sentence = error.message
    if not isinstance(error, Unavailable):
        sentence = f"What EMD has deployed in {where} can't be looked up: {sentence}"
    wait = max(error.retry_after or PAUSE, PAUSE) if error.retryable else error.retry_after
    return Unavailable(sentence, retry_after=wait, retryable=error.retryable)
