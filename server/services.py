"""What handlers are given."""

from __future__ import annotations

import asyncio
from collections.abc import Set
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from infraforge_runner.job import Job
from infraforge_runner.runner import JobRunner
from pipeline.eventlog import Feed
from pipeline.messages import Failure, Result
from pipeline.presets import MODELS
from pipeline.runtime import Runtime
from pipeline.streams import Streams
from pipeline.traced import hearing
from server.access import Access
from server.catalogue import describe_change, describe_model, list_models, list_presets
from server.metrics import Metrics
from server.options import Options
from server.recent import remember
from server.served import ServedModels

if TYPE_CHECKING:
    from pipeline.otel import Tracing

log = structlog.get_logger(__name__)

SNAPSHOT_JOBS = 100  # the newest ones; GET /api/hyperpod/jobs has them all


class Answering:
    """The requests whose answers are not wholly written yet."""

    def __init__(self) -> None:
        self._requests: set[object] = set()
        self._none_left = asyncio.Event()
        self._none_left.set()

    def enter(self, request: object) -> None:
        self._requests.add(request)
        self._none_left.clear()

    def leave(self, request: object) -> None:
        self._requests.discard(request)
        if not self._requests:
            self._none_left.set()

    async def none_left(self) -> None:
        await self._none_left.wait()


class Closable(Protocol):
    """A WebSocket, as the shutdown sees it."""

    def go_away(self) -> None: ...


@dataclass
class Services:
    """`ready` is what /readyz says: set once the server serves, cleared when it drains.

    `tracing` is there where requests are traced.
    """

    options: Options
    access: Access
    runtime: Runtime
    streams: Streams
    jobs: JobRunner
    served: ServedModels
    tracing: Tracing | None = None
    feed: Feed = field(default_factory=Feed)
    ready: bool = False
    answering: Answering = field(default_factory=Answering)
    sockets: set[Closable] = field(default_factory=set)
    metrics: Metrics = field(default_factory=Metrics)
    _keys_problem: str = ""
    _telling: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.metrics.watch(self.runtime, self.streams, self.sockets, self.jobs)
        self.jobs.on_change = self._tell_job
        self.streams.on_outcome = self._hear if self.tracing is None else hearing(self.tracing, self._hear)
        self.runtime.context.announce = self._announce

    def _hear(self, outcome: Result | Failure) -> None:
        self.metrics.outcome(outcome)
        remember(self.runtime.context.state(outcome.model), outcome)

    def _tell_job(self, job: Job) -> None:
        self.metrics.job(job)
        if job.is_finished and not job.spec.dry_run:
            self.put_models_right()
        self.feed.append("jobs", {"type": "job", **job.described()})

    def put_models_right(self) -> None:
        try:
            self.served.put_right()
        except OSError as error:
            log.warning("the models that deploys serve can't be put right", error=str(error))

    def _announce(self, model: str) -> None:
        """A stage says that a model's state has changed: the feed tells how it is now."""
        task = asyncio.create_task(self._tell_model(model), name=f"tell model {model}")
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    async def _tell_model(self, model: str) -> None:
        self.feed.append("models", {"type": "model", **await describe_model(self.runtime, model)})

    async def look_at_files(self) -> None:
        """Brings into force what has changed on disk, and tells it on the feed."""
        try:
            self.access.read_keys()
            self._keys_problem = ""
        except OSError as error:
            if str(error) != self._keys_problem:  # told once, not at every look
                log.warning("API keys can't be read; those that were read before stay", error=error.strerror)
            self._keys_problem = str(error)
        for change in await self.runtime.reload():
            self.metrics.preset_change(change.kind, change.change)
            self.feed.append("presets", {"type": "preset", **describe_change(change)})
            if change.kind == MODELS.name and change.change != "rejected":
                await self._tell_model(change.name)

    async def snapshot(self, topics: Set[str]) -> dict[str, Any]:
        """How things stand, for who begins to follow these topics of the feed."""
        found: dict[str, Any] = {"type": "snapshot"}
        if "presets" in topics:
            found["presets"] = list_presets(self.runtime.store.snapshot)
        if "models" in topics:
            found["models"] = await list_models(self.runtime)
        if "jobs" in topics:
            found["jobs"] = [job.summary() for job in self.jobs.newest(SNAPSHOT_JOBS)]
        return found
