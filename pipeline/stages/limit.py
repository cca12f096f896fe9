"""limit: so many calls of a model at once and in a second, of all and of each key; a short queue; 429 for the rest."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from typing import Any

from pipeline.errors import RateLimited
from pipeline.messages import Events, Inference
from pipeline.presets import Concurrency
from pipeline.schema import NoOptions, check
from pipeline.stage import Context, Proceed

Place = asyncio.Future[None]


class Pace:
    """So many in a second: a leaky bucket that holds a second's worth, and one at least."""

    def __init__(self) -> None:
        self._held = 0.0  # calls in the bucket
        self._at = -math.inf  # when that was so

    def wait(self, now: float, per_second: float | None, ahead: int = 0) -> float:
        """Seconds until one more may pass, with so many `ahead` of it."""
        if per_second is None:
            return 0.0
        return max(0.0, self._left(now, per_second) + ahead + 1 - max(per_second, 1.0)) / per_second

    def take(self, now: float, per_second: float | None) -> None:
        if per_second is not None:
            self._held, self._at = self._left(now, per_second) + 1, now

    def _left(self, now: float, per_second: float) -> float:
        """Calls in the bucket by now. What another rate has let in is no more than this one's bucket holds."""
        return max(0.0, min(self._held, max(per_second, 1.0)) - (now - self._at) * per_second)


class Gate:
    """One model's. Those who wait are let in key by key, so that one with many calls does not hold up the others."""

    def __init__(self) -> None:
        self.running = 0
        self.waiting = 0
        self._limits = Concurrency()
        self._running_of: Counter[str] = Counter()
        self._queues: OrderedDict[str, deque[Place]] = OrderedDict()  # by key; the first has the next turn
        self._pace = Pace()
        self._pace_of: dict[str, Pace] = {}
        self._mean_seconds = 1.0
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self, key: str, limits: Concurrency) -> Permit:
        """Waits for a place. Raises RateLimited where no more may wait. `limits` hold from now on, for all."""
        self._limits = limits
        self._admit()
        if key not in self._queues and self._hindrance(key) == 0:
            self._take(key)
        elif self.waiting < limits.queue or self._make_room(key):
            await self._wait(key)
        else:
            raise self._refusal(key)
        return Permit(self, key)

    def leave(self, key: str, seconds: float | None = None) -> None:
        """Gives a place back, after a call that took `seconds`."""
        if seconds is not None:
            self._mean_seconds += (seconds - self._mean_seconds) / 8
        self.running -= 1
        self._running_of[key] -= 1
        if not self._running_of[key]:
            del self._running_of[key]
        self._admit()

    async def _wait(self, key: str) -> None:
        place: Place = asyncio.get_running_loop().create_future()
        self._queues.setdefault(key, deque()).append(place)
        self.waiting += 1
        self._admit()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave(key)  # the place was given to us in the moment in which we left
            else:
                self._remove(key, place)
            raise

    def _hindrance(self, key: str) -> float:
        """Seconds until this key may have a place: 0 now, infinite where a call has to end first."""
        limits, of_key = self._limits, self._limits.per_key
        if limits.calls is not None and self.running >= limits.calls:
            return math.inf
        if of_key.calls is not None and self._running_of[key] >= of_key.calls:
            return math.inf
        now = time.monotonic()
        wait = self._pace.wait(now, limits.per_second)
        if of_key.per_second is not None:
            wait = max(wait, self._pace_of.setdefault(key, Pace()).wait(now, of_key.per_second))
        return wait

    def _take(self, key: str) -> None:
        now, of_key = time.monotonic(), self._limits.per_key
        self.running += 1
        self._running_of[key] += 1
        self._pace.take(now, self._limits.per_second)
        if of_key.per_second is not None:
            self._pace_of.setdefault(key, Pace()).take(now, of_key.per_second)

    def _admit(self) -> None:
        """Lets in whoever may come in: in each round one of every key."""
        admitted, soonest = True, math.inf
        while admitted and self._queues:
            admitted, soonest = False, math.inf
            for key in list(self._queues):
                wait = self._hindrance(key)
                soonest = min(soonest, wait)
                if wait == 0:
                    self._let_in(key)
                    admitted = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._queues and soonest < math.inf:
            self._timer = asyncio.get_running_loop().call_later(soonest, self._admit)

    def _let_in(self, key: str) -> None:
        place = self._queues[key][0]
        self._remove(key, place)
        if key in self._queues:
            self._queues.move_to_end(key)
        if not place.done():
            self._take(key)
            place.set_result(None)

    def _remove(self, key: str, place: Place) -> None:
        queue = self._queues.get(key, deque())
        if place in queue:
            queue.remove(place)
            self.waiting -= 1
            if not queue:
                del self._queues[key]

    def _make_room(self, key: str) -> bool:
        """In a full queue the key that fills most of it gives up its last place to one that has less."""
        greediest = max(self._queues, key=lambda other: len(self._queues[other]), default=key)
        if len(self._queues.get(greediest, ())) <= len(self._queues.get(key, ())) + 1:
            return False
        place = self._queues[greediest][-1]
        self._remove(greediest, place)
        if not place.done():
            place.set_exception(self._refusal(greediest))
        return True

    def _refusal(self, key: str) -> RateLimited:
        now, limits, of_key = time.monotonic(), self._limits, self._limits.per_key
        ahead, ahead_of_key = self.waiting, len(self._queues.get(key, ()))
        wait = max(
            self._pace.wait(now, limits.per_second, ahead),
            self._pace_of.get(key, Pace()).wait(now, of_key.per_second, ahead_of_key),
            self._wait_for_calls(self.running, limits.calls, ahead),
            self._wait_for_calls(self._running_of[key], of_key.calls, ahead_of_key),
        )
        return RateLimited(
            f"This model takes no more calls at the moment, and {ahead} are waiting already.",
            retry_after=max(1.0, math.ceil(wait)),
        )

    def _wait_for_calls(self, running: int, calls: int | None, ahead: int) -> float:
        """Seconds until a call will have ended for one more, as long as calls have taken so far."""
        if calls is None or running < calls:
            return 0.0
        return (ahead + 1) * self._mean_seconds / calls


class Permit:
    """A place behind a gate, given back once however often `release` is called."""

    def __init__(self, gate: Gate, key: str) -> None:
        self._gate: Gate | None = gate
        self._key = key
        self._since = time.monotonic()

    def release(self) -> None:
        if self._gate is not None:
            self._gate.leave(self._key, time.monotonic() - self._since)
            self._gate = None


class Limit:
    def __init__(self, context: Context) -> None:
        self._context = context

    async def __call__(self, inference: Inference, proceed: Proceed) -> Events:
        limits, state = inference.route.preset.concurrency, self._context.state(inference.route.model)
        if "limit" not in state and limits.is_open:
            return await proceed(inference)
        gate: Gate = state.setdefault("limit", Gate())
        permit = await gate.enter(inference.request.owner, limits)
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
