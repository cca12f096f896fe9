"""circuit_breaker: after so many failures in a row nobody asks, then one at a time, and one answer brings it back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.errors import ForgelineError, InvalidRequest, ModelError, RateLimited, Unavailable
from pipeline.messages import Events, Failure, Inference, Result
from pipeline.presets import Breaking
from pipeline.schema import SchemaError
from pipeline.stage import Context
from pipeline.stages import circuit_breaker
from pipeline.stages.circuit_breaker import Breaker, create
from tests.aio import asynchronous
from tests.pipeline.making import all_of, asked, play, until

DOWN = ModelError("down")
RESULT = Result("m", {})
GOOD = ["a", RESULT]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(circuit_breaker, "time", clock)  # the module alone: the loop keeps the real one
    return clock


class Broken:
    """The stage before a model whose answer is `outcome`. Its policy: 3 failures, 10 seconds."""

    def __init__(self) -> None:
        self.announced: list[str] = []
        self.context = Context(announce=lambda model: self.announced.append(self.state))
        self.stage = create({}, self.context)
        self.policy: dict[str, Any] = {"failures": 3, "seconds": 10}
        self.outcome: Any = GOOD
        self.calls = 0

    async def __call__(self) -> list[Any]:
        return await all_of(await self.stage(asked(breaker=self.policy), self._proceed))

    async def _proceed(self, inference: Inference) -> Events:
        self.calls += 1
        outcome = self.outcome
        if isinstance(outcome, asyncio.Event):
            await outcome.wait()
            outcome = self.outcome
        if isinstance(outcome, BaseException):
            raise outcome
        return Events(play(outcome))

    async def fail(self, times: int, outcome: Any = DOWN) -> None:
        self.outcome = outcome
        for _ in range(times):
            if isinstance(outcome, BaseException):
                with pytest.raises(type(outcome)):
                    await self()
            else:
                await self()

    async def is_refused(self) -> Unavailable:
        """The error of a call that is not made."""
        calls = self.calls
        with pytest.raises(Unavailable, match="is not asked for a while") as caught:
            await self()
        assert self.calls == calls
        return caught.value

    @property
    def state(self) -> str:
        breaker: Breaker = self.context.state("m")["breaker"]
        return breaker.state(Breaking(**self.policy))


@pytest.mark.parametrize("outcome", [DOWN, Unavailable("gone"), ["a", Failure("m", DOWN)]])
@asynchronous
async def test_after_so_many_failures_in_a_row_the_model_is_not_asked(clock: Clock, outcome: Any) -> None:
    broken = Broken()
    await broken.fail(2, outcome)
    assert broken.state == "closed"
    await broken.fail(1, outcome)
    assert (broken.state, broken.announced) == ("open", ["open"])
    clock.now += 2.5
    error = await broken.is_refused()
    assert (error.retry_after, error.retryable) == (8, False)


@asynchronous
async def test_a_whole_answer_begins_the_count_anew(clock: Clock) -> None:
    broken = Broken()
    for _ in range(5):
        await broken.fail(2)
        await broken.fail(1, GOOD)
    assert (broken.state, broken.announced) == ("closed", [])


@asynchronous
async def test_an_answer_that_breaks_off_each_time_is_a_failure_in_a_row(clock: Clock) -> None:
    broken = Broken()
    await broken.fail(2)
    await broken.fail(1, ["a", Failure("m", DOWN)])
    assert broken.state == "open"


@pytest.mark.parametrize("error", [RateLimited("busy"), InvalidRequest("no"), ZeroDivisionError()])
@asynchronous
async def test_a_refusal_of_one_request_says_nothing_against_the_model(clock: Clock, error: Exception) -> None:
    broken = Broken()
    await broken.fail(9, error)
    assert broken.state == "closed"


@asynchronous
async def test_one_probe_at_a_time_and_its_answer_brings_the_model_back(clock: Clock) -> None:
    broken = Broken()
    await broken.fail(3)
    clock.now += 10
    assert broken.state == "half_open"
    broken.outcome = gate = asyncio.Event()
    probe = asyncio.create_task(broken())
    await until(lambda: broken.calls == 4)
    assert (await broken.is_refused()).retry_after == 1
    broken.outcome = GOOD
    gate.set()
    assert await probe == GOOD
    assert await broken() == GOOD
    assert (broken.state, broken.announced) == ("closed", ["open", "half_open", "closed"])


@asynchronous
async def test_a_probe_that_fails_closes_the_door_for_as_long_again(clock: Clock) -> None:
    broken = Broken()
    await broken.fail(3)
    clock.now += 10
    await broken.fail(1)
    clock.now += 9.9
    await broken.is_refused()
    clock.now += 0.1
    await broken.fail(1, GOOD)
    assert broken.state == "closed"


@asynchronous
async def test_a_model_that_is_back_and_fails_at_once_is_left_alone_at_once(clock: Clock) -> None:
    broken = Broken()
    await broken.fail(3)
    clock.now += 10
    await broken.fail(1, ["a", Failure("m", DOWN)])
    assert broken.state == "open"


@asynchronous
async def test_a_probe_whose_client_leaves_makes_room_for_another(clock: Clock) -> None:
    broken = Broken()
    await broken.fail(3)
    clock.now += 10
    broken.outcome = asyncio.Event()
    probe = asyncio.create_task(broken())
    await until(lambda: broken.calls == 4)
    probe.cancel()
    await asyncio.wait([probe])
    broken.outcome = GOOD
    assert await broken() == GOOD
    assert broken.state == "closed"


@pytest.mark.parametrize("error", [RateLimited("busy"), InvalidRequest("no")])
@asynchronous
async def test_a_probe_that_is_refused_has_found_the_model_alive(clock: Clock, error: ForgelineError) -> None:
    broken = Broken()
    await broken.fail(3)
    clock.now += 10
    await broken.fail(1, error)
    assert broken.state == "closed"


@asynchronous
async def test_many_that_fail_together_open_it_once(clock: Clock) -> None:
    broken = Broken()
    broken.outcome = gate = asyncio.Event()
    calls = [asyncio.create_task(broken()) for _ in range(50)]
    await until(lambda: broken.calls == 50)
    broken.outcome = DOWN
    gate.set()
    await asyncio.wait(calls)
    assert broken.announced == ["open"]


def raised(broken: Broken) -> None:
    broken.policy["failures"] = 5


def shortened(broken: Broken) -> None:
    broken.policy["seconds"] = 1


@pytest.mark.parametrize(("change", "state"), [(raised, "open"), (shortened, "half_open")])
@asynchronous
async def test_new_numbers_count_and_the_memory_stays(
    clock: Clock, change: Callable[[Broken], None], state: str
) -> None:
    broken = Broken()
    await broken.fail(3)
    clock.now += 5
    change(broken)
    broken.stage = create({}, broken.context)  # as after a reload of the pipeline
    assert broken.state == state


@asynchronous
async def test_a_lowered_number_of_failures_counts_those_that_were(clock: Clock) -> None:
    broken = Broken()
    await broken.fail(2)
    broken.policy["failures"] = 1
    await broken.fail(1)
    assert broken.state == "open"


def test_it_takes_no_options() -> None:
    with pytest.raises(SchemaError, match="failures: unknown field"):
        create({"failures": 3}, Context())
