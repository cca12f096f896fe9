"""circuit_breaker: consecutive failures open it, then single probes run, and one answer closes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.errors import ForgelineError, InvalidRequest, ModelError, RateLimited, Unavailable
from pipeline.messages import EventStream, Failure, Inference, Result
from pipeline.presets.schema import SchemaError
from pipeline.stage import Context
from pipeline.stages import circuit_breaker
from pipeline.stages.circuit_breaker import Breaker, BreakerPolicy
from tests.async_tests import async_test, wait_until
from tests.pipeline.factories import (
    Rejection,
    collect,
    create_stage,
    fail_call,
    make_envelope,
    make_inference,
    play_steps,
)

DOWN = ModelError("down")
RESULT = Result("m", make_envelope())
ANSWER = ["a", RESULT]


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr(circuit_breaker, "time", clock)  # in this module only: the event loop keeps the real clock
    return clock


class BreakerScenario:
    """The stage in front of a model whose answer is `outcome`. Its policy: 3 failures, 10 seconds."""

    def __init__(self) -> None:
        self.announced: list[str] = []
        self.context = Context(notify_model_changed=lambda model: self.announced.append(self.state))
        self.stage = create_stage("circuit_breaker", {}, self.context)
        self.policy: dict[str, Any] = {"failures": 3, "seconds": 10}
        self.outcome: Any = ANSWER
        self.calls = 0

    async def __call__(self) -> list[Any]:
        return await collect(await self.stage(make_inference(breaker=self.policy), self._proceed))

    async def _proceed(self, inference: Inference) -> EventStream:
        self.calls += 1
        outcome = self.outcome
        if isinstance(outcome, asyncio.Event):
            await outcome.wait()
            outcome = self.outcome
        if isinstance(outcome, Rejection):
            raise outcome.error
        if isinstance(outcome, BaseException):
            fail_call(inference, outcome)
        return EventStream(play_steps(outcome))

    async def fail(self, times: int, outcome: Any = DOWN) -> None:
        self.outcome = outcome
        for _ in range(times):
            if isinstance(outcome, BaseException):
                with pytest.raises(type(outcome)):
                    await self()
            else:
                await self()

    async def check_rejected(self) -> Unavailable:
        """Assert that the open breaker rejects a call, and return the error."""
        calls = self.calls
        with pytest.raises(Unavailable, match="is not asked for a while") as caught:
            await self()
        assert self.calls == calls
        return caught.value

    @property
    def state(self) -> str:
        return self.context.state("m", Breaker).state(BreakerPolicy(**self.policy))


@pytest.mark.parametrize("outcome", [DOWN, Unavailable("gone"), ["a", Failure("m", DOWN)]])
@async_test
async def test_consecutive_failures_open_the_breaker(clock: FakeClock, outcome: Any) -> None:
    scenario = BreakerScenario()
    await scenario.fail(2, outcome)
    assert scenario.state == "closed"
    await scenario.fail(1, outcome)
    assert (scenario.state, scenario.announced) == ("open", ["open"])
    clock.now += 2.5
    error = await scenario.check_rejected()
    assert (error.retry_after, error.retryable) == (8, False)


@async_test
async def test_complete_answer_resets_the_failure_count(clock: FakeClock) -> None:
    scenario = BreakerScenario()
    for _ in range(5):
        await scenario.fail(2)
        await scenario.fail(1, ANSWER)
    assert (scenario.state, scenario.announced) == ("closed", [])


@async_test
async def test_answer_that_breaks_off_counts_as_consecutive_failure(clock: FakeClock) -> None:
    scenario = BreakerScenario()
    await scenario.fail(2)
    await scenario.fail(1, ["a", Failure("m", DOWN)])
    assert scenario.state == "open"


@pytest.mark.parametrize("error", [RateLimited("busy"), InvalidRequest("no"), ZeroDivisionError()])
@async_test
async def test_rejected_request_is_not_counted_as_failure(clock: FakeClock, error: Exception) -> None:
    scenario = BreakerScenario()
    await scenario.fail(9, error)
    assert scenario.state == "closed"


@async_test
async def test_half_open_admits_one_probe_and_its_answer_closes_the_breaker(clock: FakeClock) -> None:
    scenario = BreakerScenario()
    await scenario.fail(3)
    clock.now += 10
    assert scenario.state == "half_open"
    scenario.outcome = gate = asyncio.Event()
    probe = asyncio.create_task(scenario())
    await wait_until(lambda: scenario.calls == 4)
    assert (await scenario.check_rejected()).retry_after == 1
    scenario.outcome = ANSWER
    gate.set()
    assert await probe == ANSWER
    assert await scenario() == ANSWER
    assert (scenario.state, scenario.announced) == ("closed", ["open", "half_open", "closed"])


@async_test
async def test_failed_probe_reopens_the_breaker(clock: FakeClock) -> None:
    scenario = BreakerScenario()
    await scenario.fail(3)
    clock.now += 10
    await scenario.fail(1)
    clock.now += 9.9
    await scenario.check_rejected()
    clock.now += 0.1
    await scenario.fail(1, ANSWER)
    assert scenario.state == "closed"


@async_test
async def test_answer_of_probe_that_breaks_off_reopens_the_breaker(clock: FakeClock) -> None:
    scenario = BreakerScenario()
    await scenario.fail(3)
    clock.now += 10
    await scenario.fail(1, ["a", Failure("m", DOWN)])
    assert scenario.state == "open"


@async_test
async def test_cancelled_probe_lets_another_probe_start(clock: FakeClock) -> None:
    scenario = BreakerScenario()
    await scenario.fail(3)
    clock.now += 10
    scenario.outcome = asyncio.Event()
    probe = asyncio.create_task(scenario())
    await wait_until(lambda: scenario.calls == 4)
    probe.cancel()
    await asyncio.wait([probe])
    scenario.outcome = ANSWER
    assert await scenario() == ANSWER
    assert scenario.state == "closed"


@pytest.mark.parametrize("error", [RateLimited("busy"), InvalidRequest("no")])
@async_test
async def test_rejected_probe_closes_the_breaker(clock: FakeClock, error: ForgelineError) -> None:
    scenario = BreakerScenario()
    await scenario.fail(3)
    clock.now += 10
    await scenario.fail(1, error)
    assert scenario.state == "closed"


@pytest.mark.parametrize("error", [RateLimited("queue full"), Unavailable("no key"), InvalidRequest("no")])
@async_test
async def test_error_without_upstream_call_counts_neither_way(clock: FakeClock, error: ForgelineError) -> None:
    scenario = BreakerScenario()
    await scenario.fail(2)
    scenario.outcome = Rejection(error)
    for _ in range(9):
        with pytest.raises(type(error)):
            await scenario()
    assert (scenario.state, scenario.announced) == ("closed", [])
    await scenario.fail(1)
    assert scenario.state == "open"


@async_test
async def test_probe_without_upstream_call_lets_another_probe_start(clock: FakeClock) -> None:
    scenario = BreakerScenario()
    await scenario.fail(3)
    clock.now += 10
    scenario.outcome = Rejection(RateLimited("queue full"))
    for _ in range(2):
        with pytest.raises(RateLimited):
            await scenario()
        assert scenario.state == "half_open"
    await scenario.fail(1, ANSWER)
    assert scenario.state == "closed"


@async_test
async def test_concurrent_failures_open_the_breaker_once(clock: FakeClock) -> None:
    scenario = BreakerScenario()
    scenario.outcome = gate = asyncio.Event()
    calls = [asyncio.create_task(scenario()) for _ in range(50)]
    await wait_until(lambda: scenario.calls == 50)
    scenario.outcome = DOWN
    gate.set()
    await asyncio.wait(calls)
    assert scenario.announced == ["open"]


def raise_failure_limit(scenario: BreakerScenario) -> None:
    scenario.policy["failures"] = 5


def shorten_open_time(scenario: BreakerScenario) -> None:
    scenario.policy["seconds"] = 1


@pytest.mark.parametrize(("change", "state"), [(raise_failure_limit, "open"), (shorten_open_time, "half_open")])
@async_test
async def test_changed_policy_applies_at_once_and_state_survives_reload(
    clock: FakeClock, change: Callable[[BreakerScenario], None], state: str
) -> None:
    scenario = BreakerScenario()
    await scenario.fail(3)
    clock.now += 5
    change(scenario)
    scenario.stage = create_stage("circuit_breaker", {}, scenario.context)  # as after a reload of the pipeline
    assert scenario.state == state


@async_test
async def test_lowered_failure_limit_counts_earlier_failures(clock: FakeClock) -> None:
    scenario = BreakerScenario()
    await scenario.fail(2)
    scenario.policy["failures"] = 1
    await scenario.fail(1)
    assert scenario.state == "open"


def test_options_are_rejected() -> None:
    with pytest.raises(SchemaError, match="failures: unknown field"):
        create_stage("circuit_breaker", {"failures": 3}, Context())
