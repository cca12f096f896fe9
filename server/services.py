"""What handlers work with."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from infraforge_runner.runner import JobRunner
from pipeline.runtime import Runtime
from pipeline.streams import Streams
from server.auth.hosts import HostPolicy
from server.auth.keys import ApiKeys
from server.config import ServerOptions
from server.inference.recent_answers import RecentAnswers
from server.jobs.deployed_models import DeployedModels
from server.observability.metrics import Metrics
from server.websocket.feed_publisher import FeedPublisher

if TYPE_CHECKING:
    from pipeline.telemetry.otel import Tracing


class InFlightRequests:
    """The requests whose answers are not wholly written yet."""

    def __init__(self) -> None:
        self._requests: set[object] = set()
        self._empty = asyncio.Event()
        self._empty.set()

    def add(self, request: object) -> None:
        self._requests.add(request)
        self._empty.clear()

    def discard(self, request: object) -> None:
        self._requests.discard(request)
        if not self._requests:
            self._empty.set()

    async def wait_until_empty(self) -> None:
        await self._empty.wait()


class ClosableSocket(Protocol):
    """A WebSocket, as the shutdown uses it."""

    def close_for_shutdown(self) -> None: ...


@dataclass
class Services:
    """`ready` is what /readyz reports: true from the end of the start until the shutdown.

    `tracing` is None where requests are not traced.
    """

    options: ServerOptions
    api_keys: ApiKeys
    hosts: HostPolicy
    runtime: Runtime
    streams: Streams
    jobs: JobRunner
    deployed_models: DeployedModels
    feed_publisher: FeedPublisher
    recent_answers: RecentAnswers
    tracing: Tracing | None = None
    ready: bool = False
    in_flight: InFlightRequests = field(default_factory=InFlightRequests)
    websockets: set[ClosableSocket] = field(default_factory=set)
    metrics: Metrics = field(default_factory=Metrics)
