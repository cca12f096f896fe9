"""limit: bound the concurrent calls and the call rate of a model, in total and per API key; queue or reject others."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta, Struct

from pipeline.errors import RateLimited
from pipeline.messages import EventStream, Inference, ModelTarget
from pipeline.presets.schema import NonNegativeInt, NoOptions, PositiveInt
from pipeline.stage import Context, Measurement, Proceed

Waiter = asyncio.Future[None]
CallsPerSecond = Annotated[float, Meta(gt=0, le=1_000_000)]


class PerKeyLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """The limits of each API key on one model: concurrent calls, and calls started per second. None: no limit."""

    calls: PositiveInt | None = None
    per_second: CallsPerSecond | None = None


class Concurrency(Struct, frozen=True, forbid_unknown_fields=True):
    """Concurrent calls, calls started per second (None: no limit), and how many more calls may wait in the queue."""

    calls: PositiveInt | None = None
    queue: NonNegativeInt = 64
    per_second: CallsPerSecond | None = None
    per_key: PerKeyLimits = PerKeyLimits()

    @property
    def is_unlimited(self) -> bool:
        return self.calls is None and self.per_second is None and self.per_key == PerKeyLimits()


class LeakyBucket:
    """A rate limit. The bucket holds the calls of one second, and at least one call.

    The rate is an argument, because a reloaded preset may change it. Times are monotonic seconds. A rate of None is
    no limit.
    """

    def __init__(self) -> None:
        self._level = 0.0  # calls in the bucket at `_updated_at`
        self._updated_at = -math.inf

    def delay(self, now: float, per_second: float | None, ahead: int = 0) -> float:
        """Seconds until one more call may start, after `ahead` others."""
        if per_second is None:
            return 0.0
        return max(0.0, self._level_at(now, per_second) + ahead + 1 - max(per_second, 1.0)) / per_second

    def add(self, now: float, per_second: float | None) -> None:
        """Count a call that starts now."""
        if per_second is not None:
            self._level, self._updated_at = self._level_at(now, per_second) + 1, now

    def _level_at(self, now: float, per_second: float) -> float:
        # A higher rate may have filled a larger bucket: this rate's bucket can't hold more than its own size.
        return max(0.0, min(self._level, max(per_second, 1.0)) - (now - self._updated_at) * per_second)


class FairQueue:
    """Waiters by API key. The keys take turns, so that one with many waiters does not delay the others."""

    def __init__(self) -> None:
        self.size = 0
        self._waiters: OrderedDict[str, deque[Waiter]] = OrderedDict()  # the first key has the next turn

    def __contains__(self, key: str) -> bool:
        return key in self._waiters

    def list_keys(self) -> list[str]:
        """The keys with waiters, in the order of their turns."""
        return list(self._waiters)

    def count(self, key: str) -> int:
        return len(self._waiters.get(key, ()))

    def append(self, key: str, waiter: Waiter) -> None:
        self._waiters.setdefault(key, deque()).append(waiter)
        self.size += 1

    def pop(self, key: str) -> Waiter:
        """Remove the oldest waiter of this key, and end its turn."""
        waiters = self._waiters[key]
        waiter = waiters.popleft()
        self.size -= 1
        if waiters:
            self._waiters.move_to_end(key)
        else:
            del self._waiters[key]
        return waiter

    def remove(self, key: str, waiter: Waiter) -> None:
        """Remove this waiter, if it is still in the queue."""
        waiters = self._waiters.get(key)
        if waiters is None or waiter not in waiters:
            return
        waiters.remove(waiter)
        self.size -= 1
        if not waiters:
            del self._waiters[key]

    def pop_newest_of_largest(self, key: str) -> tuple[str, Waiter] | None:
        """Remove the newest waiter of the key with the most waiters, for a waiter of `key` to take its place.

        Returns None if no key has at least two waiters more than `key`: the exchange would only reverse the roles.
        """
        largest = max(self._waiters, key=self.count, default=key)
        if self.count(largest) <= self.count(key) + 1:
            return None
        self.size -= 1
        return largest, self._waiters[largest].pop()


class AdmissionController:
    """Admits the calls of one model: within its limits at once, else through a queue, and rejects what exceeds both."""

    def __init__(self) -> None:
        self.running = 0
        self._running_by_key: dict[str, int] = {}
        self._limits = Concurrency()
        self._queue = FairQueue()
        self._bucket = LeakyBucket()
        self._bucket_by_key: dict[str, LeakyBucket] = {}
        self._mean_seconds = 1.0  # of a call, an exponential moving average
        self._timer: asyncio.TimerHandle | None = None  # the next `_admit_waiters`, if only a rate delays the queue

    @property
    def waiting(self) -> int:
        return self._queue.size

    @property
    def is_unlimited(self) -> bool:
        """Whether the last call was not limited either, so that nothing has to be counted."""
        return self._limits.is_unlimited

    async def acquire(self, key: str, limits: Concurrency) -> Permit:
        """Wait until a call of this key may start. Raises RateLimited if it may not even wait.

        `limits` replace those of earlier calls, also for the calls that are waiting.
        """
        self._limits = limits
        if self._queue.size:
            self._admit_waiters()
        if key not in self._queue and self._delay(key) == 0:
            self._start_call(key)
        elif self._queue.size < limits.queue or self._evict_from_largest_queue(key):
            await self._wait(key)
        else:
            raise self._rate_limited(key)
        return Permit(self, key)

    def release(self, key: str, seconds: float | None = None) -> None:
        """End a call of this key, which took `seconds` (None: it never started)."""
        if seconds is not None:
            self._mean_seconds += (seconds - self._mean_seconds) / 8
        self.running -= 1
        self._running_by_key[key] -= 1
        if not self._running_by_key[key]:
            del self._running_by_key[key]
        if self._queue.size:
            self._admit_waiters()

    async def _wait(self, key: str) -> None:
        waiter: Waiter = asyncio.get_running_loop().create_future()
        self._queue.append(key, waiter)
        self._admit_waiters()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.release(key)  # it was admitted, but cancelled before its task ran again
            else:
                self._queue.remove(key, waiter)
                self._admit_waiters()  # sets the timer for the waiters that are left
            raise

    def _delay(self, key: str) -> float:
        """Seconds until a call of this key may start: 0 now, infinite if another call has to end first."""
        limits, key_limits = self._limits, self._limits.per_key
        if limits.calls is not None and self.running >= limits.calls:
            return math.inf
        if key_limits.calls is not None and self._running_by_key.get(key, 0) >= key_limits.calls:
            return math.inf
        now = time.monotonic()
        delay = self._bucket.delay(now, limits.per_second)
        if key_limits.per_second is not None:
            bucket = self._bucket_by_key.setdefault(key, LeakyBucket())
            delay = max(delay, bucket.delay(now, key_limits.per_second))
        return delay

    def _start_call(self, key: str) -> None:
        now, key_limits = time.monotonic(), self._limits.per_key
        self.running += 1
        self._running_by_key[key] = self._running_by_key.get(key, 0) + 1
        self._bucket.add(now, self._limits.per_second)
        if key_limits.per_second is not None:
            self._bucket_by_key.setdefault(key, LeakyBucket()).add(now, key_limits.per_second)

    def _admit_waiters(self) -> None:
        """Admit all waiters that may start now, one of each key per round, and set the timer for the others."""
        has_admitted, shortest_delay = True, math.inf
        while has_admitted and self._queue.size:
            has_admitted, shortest_delay = False, math.inf
            for key in self._queue.list_keys():
                delay = self._delay(key)
                shortest_delay = min(shortest_delay, delay)
                if delay == 0:
                    self._admit(key)
                    has_admitted = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._queue.size and shortest_delay < math.inf:
            self._timer = asyncio.get_running_loop().call_later(shortest_delay, self._admit_waiters)

    def _admit(self, key: str) -> None:
        waiter = self._queue.pop(key)
        if not waiter.done():  # else it is cancelled, and its task has not run since
            self._start_call(key)
            waiter.set_result(None)

    def _evict_from_largest_queue(self, key: str) -> bool:
        """Make room in a full queue: reject the newest waiter of the key with the most, if it has more than `key`."""
        evicted = self._queue.pop_newest_of_largest(key)
        if evicted is None:
            return False
        evicted_key, waiter = evicted
        if not waiter.done():
            waiter.set_exception(self._rate_limited(evicted_key))
        return True

    def _rate_limited(self, key: str) -> RateLimited:
        now, limits, key_limits = time.monotonic(), self._limits, self._limits.per_key
        ahead, ahead_of_key = self._queue.size, self._queue.count(key)
        delay = max(
            self._bucket.delay(now, limits.per_second, ahead),
            self._bucket_by_key.get(key, LeakyBucket()).delay(now, key_limits.per_second, ahead_of_key),
            self._estimate_call_delay(self.running, limits.calls, ahead),
            self._estimate_call_delay(self._running_by_key.get(key, 0), key_limits.calls, ahead_of_key),
        )
        return RateLimited(
            f"This model takes no more calls at the moment, and {ahead} are waiting already.",
            retry_after=max(1.0, math.ceil(delay)),
        )

    def _estimate_call_delay(self, running: int, calls: int | None, ahead: int) -> float:
        """Seconds until enough calls have ended for one more after `ahead` others, if they take the mean time."""
        if calls is None or running < calls:
            return 0.0
        return (ahead + 1) * self._mean_seconds / calls


class Permit:
    """The right to run one call. Only the first `release` has an effect."""

    def __init__(self, controller: AdmissionController, key: str) -> None:
        self._controller: AdmissionController | None = controller
        self._key = key
        self._acquired_at = time.monotonic()

    def release(self) -> None:
        if self._controller is not None:
            self._controller.release(self._key, time.monotonic() - self._acquired_at)
            self._controller = None


class Limit:
    Options = NoOptions

    class ModelOptions(Struct, frozen=True):
        concurrency: Concurrency = Concurrency()

    def __init__(self, options: NoOptions, context: Context) -> None:
        self._context = context

    def gauges(self, target: ModelTarget) -> Iterator[Measurement]:
        waiting = self._context.state(target.model, AdmissionController).waiting
        yield Measurement("queue_length", "Calls that wait for a place at a model.", waiting)

    async def __call__(self, inference: Inference, proceed: Proceed) -> EventStream:
        target = inference.target
        limits = target.preset.options_of(self.ModelOptions).concurrency
        controller = self._context.state(target.model, AdmissionController)
        if limits.is_unlimited and controller.is_unlimited:
            return await proceed(inference)
        permit = await controller.acquire(inference.request.owner, limits)
        try:
            events = await proceed(inference)
        except BaseException:
            permit.release()
            raise
        events.add_cleanup(permit.release)
        return events
