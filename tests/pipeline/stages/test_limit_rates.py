"""limit: rates, fairness between keys, Retry-After, and limits that change while calls wait."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipeline.errors import RateLimited
from pipeline.stages import limit
from pipeline.stages.limit import AdmissionController, Concurrency, LeakyBucket, PerKeyLimits, Permit
from tests.async_tests import async_test


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.1  # fractions of a second are not exact in floating point here

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(limit, "time", clock)  # in this module only: the event loop keeps the real clock
    return clock


class AdmissionScenario:
    """An admission controller with the keys of its admitted and rejected calls, in order."""

    def __init__(self, **limits: Any) -> None:
        self.controller = AdmissionController()
        self.limits = Concurrency(**limits)
        self.admitted: list[str] = []
        self.permits: list[Permit] = []
        self.rejected: list[tuple[str, float]] = []

    async def acquire(self, key: str = "a") -> None:
        try:
            permit = await self.controller.acquire(key, self.limits)
        except RateLimited as error:
            self.rejected.append((key, error.retry_after or 0.0))
        else:
            self.admitted.append(key)
            self.permits.append(permit)

    async def start_calls(self, keys: str) -> list[asyncio.Task[None]]:
        """Start one call of each of these keys, in order."""
        tasks = [asyncio.create_task(self.acquire(key)) for key in keys]
        await run_ready_tasks()
        return tasks

    async def end_calls(self, calls: int = 1) -> None:
        """End the oldest calls, one after the other."""
        for _ in range(calls):
            self.permits.pop(0).release()
            await run_ready_tasks()


async def run_ready_tasks(count: int = 3) -> None:
    """Let every ready task run."""
    for _ in range(count):
        await asyncio.sleep(0)


# --- rates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1.0, 3.0, 5.0, 7.0, 100.0])
@async_test
async def test_rate_allows_a_burst_of_one_second(clock: FakeClock, rate: float) -> None:
    scenario = AdmissionScenario(per_second=rate, queue=0)
    await scenario.start_calls("a" * (int(rate) + 1))
    assert (len(scenario.admitted), len(scenario.rejected)) == (rate, 1)
    clock.now += 10
    await scenario.start_calls("a" * (int(rate) + 1))
    assert (len(scenario.admitted), len(scenario.rejected)) == (2 * rate, 2)


@async_test
async def test_rate_holds_over_many_seconds(clock: FakeClock) -> None:
    scenario = AdmissionScenario(per_second=4.0, queue=0)
    for _ in range(1000):
        await scenario.acquire()
        clock.now += 0.01
    assert 4 + 39 <= len(scenario.admitted) <= 4 + 40


@async_test
async def test_timer_admits_calls_that_wait_for_the_rate() -> None:
    scenario = AdmissionScenario(per_second=50.0)
    tasks = await scenario.start_calls("a" * 53)
    assert len(scenario.admitted) == 50
    await asyncio.gather(*tasks)
    assert (len(scenario.admitted), scenario.controller.waiting) == (53, 0)


@async_test
async def test_rate_per_key_does_not_limit_other_keys(clock: FakeClock) -> None:
    scenario = AdmissionScenario(per_key=PerKeyLimits(per_second=2.0), queue=0)
    await scenario.start_calls("aaaaabbc")
    assert "".join(scenario.admitted) == "aabbc"


def test_changed_rate_applies_at_once() -> None:
    slow, fast = LeakyBucket(), LeakyBucket()
    slow.add(0.0, 0.001)
    assert slow.delay(1.0, 0.001) == pytest.approx(999)
    assert slow.delay(1.0, 10.0) == 0
    for _ in range(1000):
        fast.add(0.0, 1000.0)
    assert fast.delay(0.0, 1.0) == 1


# --- fairness -------------------------------------------------------------------------------------


@async_test
async def test_queue_is_served_round_robin_by_key(clock: FakeClock) -> None:
    scenario = AdmissionScenario(calls=1)
    await scenario.start_calls("aaaaabbc")
    assert scenario.admitted == ["a"]
    await scenario.end_calls(7)
    assert "".join(scenario.admitted) == "aabcabaa"


@async_test
async def test_new_call_does_not_overtake_the_queue(clock: FakeClock) -> None:
    scenario = AdmissionScenario(calls=1)
    await scenario.start_calls("aab")
    scenario.permits.pop(0).release()
    await scenario.start_calls("c")
    await scenario.end_calls(2)
    assert "".join(scenario.admitted) == "aabc"


@async_test
async def test_key_at_its_limit_does_not_block_other_keys(clock: FakeClock) -> None:
    scenario = AdmissionScenario(calls=3, per_key=PerKeyLimits(calls=2))
    await scenario.start_calls("aaaab")
    assert "".join(scenario.admitted) == "aab"
    await scenario.end_calls()
    assert "".join(scenario.admitted) == "aaba"


@async_test
async def test_full_queue_evicts_from_the_key_with_the_most_waiters(clock: FakeClock) -> None:
    scenario = AdmissionScenario(calls=1, queue=4)
    await scenario.start_calls("aaaaa" + "b")
    assert (scenario.rejected, scenario.controller.waiting) == ([("a", 4.0)], 4)
    await scenario.start_calls("bc")
    assert [key for key, _ in scenario.rejected] == ["a", "a", "a"]
    await scenario.end_calls(4)
    assert "".join(scenario.admitted) == "aabcb"


@async_test
async def test_full_queue_evicts_nothing_for_a_key_with_as_many_waiters(clock: FakeClock) -> None:
    scenario = AdmissionScenario(calls=1, queue=4)
    await scenario.start_calls("aaabb")
    await scenario.start_calls("ab")
    assert [key for key, _ in scenario.rejected] == ["a", "b"]
    assert scenario.controller.waiting == 4


@async_test
async def test_no_key_starves_while_another_fills_the_queue() -> None:
    scenario = AdmissionScenario(calls=1, queue=8)
    await scenario.start_calls("a" * 9)
    (waiting,) = await scenario.start_calls("b")
    for _ in range(2):
        await scenario.start_calls("aaa")
        await scenario.end_calls()
    assert waiting.done()
    assert "b" in scenario.admitted


# --- Retry-After ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "earlier_calls", "seconds"),
    [
        ({"per_second": 1.0, "queue": 0}, "a", 1),
        ({"per_second": 0.1, "queue": 0}, "a", 10),
        ({"per_second": 0.1, "queue": 2}, "aaa", 30),
        ({"per_second": 2.0, "queue": 7}, "aa" + "a" * 7, 4),
        ({"per_key": PerKeyLimits(per_second=0.5), "queue": 3}, "aaaa", 8),
        ({"per_second": 0.1, "per_key": PerKeyLimits(per_second=0.5), "queue": 0}, "a", 10),
        ({"calls": 1, "queue": 0}, "a", 20),
        ({"calls": 4, "queue": 3}, "a" * 7, 20),
        ({"calls": 100, "per_key": PerKeyLimits(calls=1), "queue": 2}, "aaa", 60),
    ],
)
@async_test
async def test_retry_after_estimates_the_next_free_permit(
    clock: FakeClock, limits: dict[str, Any], earlier_calls: str, seconds: float
) -> None:
    scenario = AdmissionScenario(**limits)
    for _ in range(100):  # calls take 20 seconds
        await scenario.controller.acquire("", Concurrency())
        scenario.controller.release("", seconds=20.0)
    tasks = await scenario.start_calls(earlier_calls)
    await scenario.acquire()
    assert scenario.rejected == [("a", seconds)]
    for task in tasks:
        task.cancel()


# --- changed limits -------------------------------------------------------------------------------


@async_test
async def test_raised_limit_admits_the_queue_and_lowered_limit_drops_no_call(clock: FakeClock) -> None:
    scenario = AdmissionScenario(calls=4)
    await scenario.start_calls("aaaaaa")
    scenario.limits = Concurrency(calls=1, queue=3)
    await scenario.start_calls("a")
    assert (len(scenario.admitted), scenario.controller.waiting, scenario.rejected) == (4, 3, [])
    await scenario.end_calls(3)
    assert len(scenario.admitted) == 4
    scenario.limits = Concurrency(calls=8)
    await scenario.start_calls("a")
    assert (len(scenario.admitted), scenario.controller.waiting) == (8, 0)


@async_test
async def test_removed_limit_admits_the_whole_queue(clock: FakeClock) -> None:
    scenario = AdmissionScenario(calls=1, per_second=0.001, per_key=PerKeyLimits(calls=1, per_second=0.001))
    await scenario.start_calls("aaabb")
    scenario.limits = Concurrency()
    await scenario.start_calls("c")
    assert sorted(scenario.admitted) == ["a", "a", "a", "b", "b", "c"]
    await scenario.end_calls(6)
    assert scenario.controller.running == 0
