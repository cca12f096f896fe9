"""limit: rates, keys that share a model fairly, true times to come back, and numbers that change meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipeline.errors import RateLimited
from pipeline.presets import Concurrency, PerKey
from pipeline.stages import limit
from pipeline.stages.limit import Gate, Pace, Permit
from tests.aio import asynchronous


class Clock:
    def __init__(self) -> None:
        self.now = 1000.1  # at which fractions of a second are no round numbers

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(limit, "time", clock)  # the module alone: the loop keeps the real one
    return clock


class Door:
    """A gate, and who came through it, in order."""

    def __init__(self, **limits: Any) -> None:
        self.gate = Gate()
        self.limits = Concurrency(**limits)
        self.order: list[str] = []
        self.permits: list[Permit] = []
        self.refused: list[tuple[str, float]] = []

    async def come(self, key: str = "a") -> None:
        try:
            permit = await self.gate.enter(key, self.limits)
        except RateLimited as error:
            self.refused.append((key, error.retry_after or 0.0))
        else:
            self.order.append(key)
            self.permits.append(permit)

    async def queue(self, keys: str) -> list[asyncio.Task[None]]:
        """One call of each of these keys, in this order."""
        tasks = [asyncio.create_task(self.come(key)) for key in keys]
        await turns()
        return tasks

    async def end(self, calls: int = 1) -> None:
        """The oldest calls end, one after the other."""
        for _ in range(calls):
            self.permits.pop(0).release()
            await turns()


async def turns(count: int = 3) -> None:
    """Lets every task run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


# --- how fast -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [1.0, 3.0, 5.0, 7.0, 100.0])
@asynchronous
async def test_a_seconds_worth_may_come_at_once_and_not_one_more(clock: Clock, rate: float) -> None:
    door = Door(per_second=rate, queue=0)
    await door.queue("a" * (int(rate) + 1))
    assert (len(door.order), len(door.refused)) == (rate, 1)
    clock.now += 10
    await door.queue("a" * (int(rate) + 1))
    assert (len(door.order), len(door.refused)) == (2 * rate, 2)


@asynchronous
async def test_in_the_long_run_as_many_come_as_the_rate_says(clock: Clock) -> None:
    door = Door(per_second=4.0, queue=0)
    for _ in range(1000):
        await door.come()
        clock.now += 0.01
    assert 4 + 39 <= len(door.order) <= 4 + 40


@asynchronous
async def test_those_who_wait_for_their_time_come_in_by_themselves() -> None:
    door = Door(per_second=50.0)
    tasks = await door.queue("a" * 53)
    assert len(door.order) == 50
    await asyncio.gather(*tasks)
    assert (len(door.order), door.gate.waiting) == (53, 0)


@asynchronous
async def test_a_key_that_uses_up_its_own_rate_leaves_the_others_theirs(clock: Clock) -> None:
    door = Door(per_key=PerKey(per_second=2.0), queue=0)
    await door.queue("aaaaabbc")
    assert "".join(door.order) == "aabbc"


def test_another_rate_counts_at_once() -> None:
    slow, fast = Pace(), Pace()
    slow.take(0.0, 0.001)
    assert slow.wait(1.0, 0.001) == pytest.approx(999)
    assert slow.wait(1.0, 10.0) == 0
    for _ in range(1000):
        fast.take(0.0, 1000.0)
    assert fast.wait(0.0, 1.0) == 1


# --- fairly ---------------------------------------------------------------------------------------


@asynchronous
async def test_keys_take_turns_however_many_calls_each_has(clock: Clock) -> None:
    door = Door(calls=1)
    await door.queue("aaaaabbc")
    assert door.order == ["a"]
    await door.end(7)
    assert "".join(door.order) == "aabcabaa"


@asynchronous
async def test_a_newcomer_does_not_pass_those_who_wait(clock: Clock) -> None:
    door = Door(calls=1)
    await door.queue("aab")
    door.permits.pop(0).release()
    await door.queue("c")
    await door.end(2)
    assert "".join(door.order) == "aabc"


@asynchronous
async def test_a_key_at_its_own_limit_does_not_hold_up_the_others(clock: Clock) -> None:
    door = Door(calls=3, per_key=PerKey(calls=2))
    await door.queue("aaaab")
    assert "".join(door.order) == "aab"
    await door.end()
    assert "".join(door.order) == "aaba"


@asynchronous
async def test_the_key_that_fills_the_queue_makes_room_for_others(clock: Clock) -> None:
    door = Door(calls=1, queue=4)
    await door.queue("aaaaa" + "b")
    assert (door.refused, door.gate.waiting) == ([("a", 4.0)], 4)
    await door.queue("bc")
    assert [key for key, _ in door.refused] == ["a", "a", "a"]
    await door.end(4)
    assert "".join(door.order) == "aabcb"


@asynchronous
async def test_a_key_does_not_make_room_for_itself_or_for_as_greedy_a_one(clock: Clock) -> None:
    door = Door(calls=1, queue=4)
    await door.queue("aaabb")
    await door.queue("ab")
    assert [key for key, _ in door.refused] == ["a", "b"]
    assert door.gate.waiting == 4


@asynchronous
async def test_nobody_starves_while_another_key_keeps_the_queue_full() -> None:
    door = Door(calls=1, queue=8)
    await door.queue("a" * 9)
    (waiting,) = await door.queue("b")
    for _ in range(2):
        await door.queue("aaa")
        await door.end()
    assert waiting.done()
    assert "b" in door.order


# --- when to come back ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "before", "seconds"),
    [
        ({"per_second": 1.0, "queue": 0}, "a", 1),
        ({"per_second": 0.1, "queue": 0}, "a", 10),
        ({"per_second": 0.1, "queue": 2}, "aaa", 30),
        ({"per_second": 2.0, "queue": 7}, "aa" + "a" * 7, 4),
        ({"per_key": PerKey(per_second=0.5), "queue": 3}, "aaaa", 8),
        ({"per_second": 0.1, "per_key": PerKey(per_second=0.5), "queue": 0}, "a", 10),
        ({"calls": 1, "queue": 0}, "a", 20),
        ({"calls": 4, "queue": 3}, "a" * 7, 20),
        ({"calls": 100, "per_key": PerKey(calls=1), "queue": 2}, "aaa", 60),
    ],
)
@asynchronous
async def test_who_is_refused_is_told_when_there_will_be_a_place(
    clock: Clock, limits: dict[str, Any], before: str, seconds: float
) -> None:
    door = Door(**limits)
    for _ in range(100):  # calls take 20 seconds
        await door.gate.enter("", Concurrency())
        door.gate.leave("", seconds=20.0)
    tasks = await door.queue(before)
    await door.come()
    assert door.refused == [("a", seconds)]
    for task in tasks:
        task.cancel()


# --- numbers that change --------------------------------------------------------------------------


@asynchronous
async def test_a_raised_limit_lets_the_queue_in_and_a_lowered_one_drops_nobody(clock: Clock) -> None:
    door = Door(calls=4)
    await door.queue("aaaaaa")
    door.limits = Concurrency(calls=1, queue=3)
    await door.queue("a")
    assert (len(door.order), door.gate.waiting, door.refused) == (4, 3, [])
    await door.end(3)
    assert len(door.order) == 4
    door.limits = Concurrency(calls=8)
    await door.queue("a")
    assert (len(door.order), door.gate.waiting) == (8, 0)


@asynchronous
async def test_a_limit_that_is_taken_away_lets_everybody_in(clock: Clock) -> None:
    door = Door(calls=1, per_second=0.001, per_key=PerKey(calls=1, per_second=0.001))
    await door.queue("aaabb")
    door.limits = Concurrency()
    await door.queue("c")
    assert sorted(door.order) == ["a", "a", "a", "b", "b", "c"]
    await door.end(6)
    assert door.gate.running == 0
