"""limit: so many calls of a model at once, a short queue before them, and 429 for the rest."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from pipeline.errors import RateLimited
from pipeline.messages import Events, Inference
from pipeline.schema import NoOptions, check
from pipeline.stage import Context, Proceed


class Gate:
    """Lets `calls` in at once, and `queue` more wait in the order in which they came."""

    def __init__(self) -> None:
        self.running = 0
        self.waiting: deque[asyncio.Future[None]] = deque()
        self._calls = 0
        self._mean_seconds = 1.0

    async def enter(self, calls: int, queue: int) -> Permit:
        """Waits for a place. Raises RateLimited where the queue is full."""
        self._calls = calls
        self._admit()
        if self.running < calls:
            self.running += 1
        elif len(self.waiting) < queue:
            await self._wait()
        else:
            raise RateLimited(
                f"This model takes {calls} calls at once, and {len(self.waiting)} more are waiting already.",
                retry_after=self._time_until_free(),
            )
        return Permit(self)

    async def _wait(self) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place in self.waiting:
                self.waiting.remove(place)
            if not place.cancelled():  # the place was given to us in the moment in which we left
                self.leave()
            raise

    def leave(self, seconds: float | None = None) -> None:
        """Gives a place back, after a call that took `seconds`."""
        if seconds is not None:
            self._mean_seconds += (seconds - self._mean_seconds) / 8
        self.running -= 1
        self._admit()

    def _admit(self) -> None:
        while self.waiting and self.running < self._calls:
            place = self.waiting.popleft()
            if not place.done():  # one that is done was cancelled, and its task has not run since
                place.set_result(None)
                self.running += 1

    def _time_until_free(self) -> float:
        """Seconds until one who came now would have found a place, by how long calls have taken lately."""
        return max(1.0, math.ceil((len(self.waiting) + 1) * self._mean_seconds / self._calls))


class Permit:
    """A place behind a gate, given back once however often `release` is called."""

    def __init__(self, gate: Gate) -> None:
        self._gate: Gate | None = gate
        self._since = time.monotonic()

    def release(self) -> None:
        if self._gate is not None:
            self._gate.leave(time.monotonic() - self._since)
            self._gate = None


class Limit:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, inference: Inference, proceed: Proceed) -> Events:
        concurrency = inference.route.preset.concurrency
        if concurrency.calls is None:
            return await proceed(inference)
        gate: Gate = self._context.state(inference.route.model).setdefault("limit", Gate())
        permit = await gate.enter(concurrency.calls, concurrency.queue)
        try:
            events = await proceed(inference)
        except BaseException:
            permit.release()
            raise
        events.hold(permit.release)
        return events


def create(options: Mapping[str, Any], context: Context) -> Limit:
    check(options, NoOptions)
    return Limit(context)
