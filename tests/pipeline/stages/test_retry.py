"""retry: only retryable errors, only before the first chunk, with delays, and up to a deadline."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import ForgelineError, InvalidRequest, ModelError, RateLimited, Unavailable
from pipeline.messages import EventStream, Inference
from pipeline.presets.schema import SchemaError
from pipeline.stage import Context
from pipeline.stages import retry
from pipeline.stages.retry import RetryCounter, RetryPolicy, retry_delay
from tests.async_tests import async_test, wait_until
from tests.pipeline.factories import Rejection, collect, create_stage, fail_call, make_inference, play_steps

NO_CONNECTION = Unavailable("no connection", retryable=True)


class RetryScenario:
    """The stage in front of calls that have these `outcomes` in order; later calls succeed."""

    def __init__(self, *outcomes: BaseException | Rejection | list[Any], **policy: float) -> None:
        self.context = Context()
        self.policy = {"backoff": 0.001} | policy
        self.outcomes = list(outcomes)
        self.inferences: list[Inference] = []

    async def __call__(self) -> list[Any]:
        return await collect(
            await create_stage("retry", {}, self.context)(make_inference(retry=self.policy), self._proceed)
        )

    async def _proceed(self, inference: Inference) -> EventStream:
        self.inferences.append(inference)
        outcome = self.outcomes.pop(0) if self.outcomes else ["a", "b"]
        if isinstance(outcome, Rejection):
            raise outcome.error
        if isinstance(outcome, BaseException):
            fail_call(inference, outcome)
        return EventStream(play_steps(outcome))

    @property
    def retries(self) -> int:
        return self.context.state("m", RetryCounter).retries


@pytest.mark.parametrize("error", [RateLimited("busy"), ModelError("500"), NO_CONNECTION])
@async_test
async def test_retryable_error_is_retried_and_counted(error: ForgelineError) -> None:
    scenario = RetryScenario(error, error)
    assert await scenario() == ["a", "b"]
    assert (len(scenario.inferences), scenario.retries) == (3, 2)
    assert all(first is second for first, second in pairwise(scenario.inferences))  # every attempt gets the original


@pytest.mark.parametrize(
    "error", [InvalidRequest("no"), Unavailable("no key"), ModelError("302", retryable=False), ZeroDivisionError()]
)
@async_test
async def test_other_error_is_not_retried(error: Exception) -> None:
    scenario = RetryScenario(error)
    with pytest.raises(type(error)) as caught:
        await scenario()
    assert caught.value is error
    assert (len(scenario.inferences), scenario.retries) == (1, 0)


@pytest.mark.parametrize("attempts", [1, 2, 5])
@async_test
async def test_last_error_is_raised_after_the_last_attempt(attempts: int) -> None:
    errors = [ModelError(str(number)) for number in range(9)]
    scenario = RetryScenario(*errors, attempts=attempts)
    with pytest.raises(ModelError) as caught:
        await scenario()
    assert caught.value is errors[attempts - 1]
    assert (len(scenario.inferences), scenario.retries) == (attempts, attempts - 1)


@pytest.mark.parametrize("error", [RateLimited("queue full", retry_after=0.0), Unavailable("open", retryable=True)])
@async_test
async def test_rejection_by_another_stage_is_not_retried(error: ForgelineError) -> None:
    scenario = RetryScenario(Rejection(error))
    with pytest.raises(type(error)) as caught:
        await scenario()
    assert caught.value is error
    assert (len(scenario.inferences), scenario.retries) == (1, 0)


@async_test
async def test_rejected_retry_raises_the_last_upstream_error() -> None:
    errors = [ModelError("first"), ModelError("second")]
    scenario = RetryScenario(*errors, Rejection(RateLimited("queue full")), attempts=5)
    with pytest.raises(ModelError) as caught:
        await scenario()
    assert caught.value is errors[1]
    assert len(scenario.inferences) == 3


@async_test
async def test_no_retry_after_the_first_chunk() -> None:
    scenario = RetryScenario(["a", ModelError("cut")])
    with pytest.raises(ModelError, match="cut"):
        await scenario()
    assert len(scenario.inferences) == 1


@async_test
async def test_no_retry_whose_delay_exceeds_the_deadline() -> None:
    scenario = RetryScenario(RateLimited("busy", retry_after=60.0), deadline=1.0)
    with pytest.raises(RateLimited) as caught:
        await scenario()
    assert caught.value.retry_after == 60.0
    assert (len(scenario.inferences), scenario.retries) == (1, 0)


@async_test
async def test_slow_failures_use_up_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 4.0, 9.9999])  # at the start, after the first failure, after the second
    monkeypatch.setattr(retry, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    scenario = RetryScenario(NO_CONNECTION, NO_CONNECTION, deadline=10.0)
    with pytest.raises(Unavailable):
        await scenario()
    assert (len(scenario.inferences), scenario.retries) == (2, 1)


@async_test
async def test_cancel_during_delay_ends_the_retry() -> None:
    scenario = RetryScenario(RateLimited("busy", retry_after=60.0), deadline=100.0)
    task = asyncio.create_task(scenario())
    await wait_until(lambda: scenario.retries == 1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert len(scenario.inferences) == 1


def test_delay_is_a_random_part_of_doubling_intervals() -> None:
    policy = RetryPolicy(attempts=9, backoff=0.5)
    for attempt, interval in [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0)]:
        delays = [retry_delay(ModelError("no"), attempt, policy) or 0.0 for _ in range(200)]
        assert 0 <= min(delays) < interval / 4
        assert interval * 3 / 4 < max(delays) <= interval


def test_throttling_without_retry_after_has_a_random_delay() -> None:
    delays = {retry_delay(RateLimited("busy"), 1, RetryPolicy()) for _ in range(20)}
    assert len(delays) == 20


@pytest.mark.parametrize("seconds", [0.0, 0.5, 7.0])
def test_delay_follows_the_upstreams_retry_after(seconds: float) -> None:
    for error in (RateLimited("busy", retry_after=seconds), Unavailable("503", retry_after=seconds, retryable=True)):
        assert retry_delay(error, 2, RetryPolicy(backoff=0.001)) == seconds


def test_options_are_rejected() -> None:
    with pytest.raises(SchemaError, match="attempts: unknown field"):
        create_stage("retry", {"attempts": 3}, Context())
