"""retry: made again only before the first chunk, only what may pass, with pauses, and up to a deadline."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.errors import ForgelineError, InvalidRequest, ModelError, RateLimited, Unavailable
from pipeline.messages import Events, Inference
from pipeline.presets import Retrying
from pipeline.schema import SchemaError
from pipeline.stage import Context
from pipeline.stages import retry
from pipeline.stages.retry import create, pause_before_next
from tests.aio import asynchronous
from tests.pipeline.making import all_of, asked, play, until

REFUSED = Unavailable("no connection", retryable=True)


class Retried:
    """The stage before calls that end, one after the other, as `outcomes` say; after them all is well."""

    def __init__(self, *outcomes: BaseException | list[Any], **policy: float) -> None:
        self.context = Context()
        self.policy = {"backoff": 0.001} | policy
        self.outcomes = list(outcomes)
        self.seen: list[Inference] = []

    async def __call__(self) -> list[Any]:
        return await all_of(await create({}, self.context)(asked(retry=self.policy), self._proceed))

    async def _proceed(self, inference: Inference) -> Events:
        self.seen.append(inference)
        outcome = self.outcomes.pop(0) if self.outcomes else ["a", "b"]
        if isinstance(outcome, BaseException):
            raise outcome
        return Events(play(outcome))

    @property
    def retries(self) -> int:
        return self.context.tally("m").retries


@pytest.mark.parametrize("error", [RateLimited("busy"), ModelError("500"), REFUSED])
@asynchronous
async def test_what_may_pass_is_tried_again_and_counted(error: ForgelineError) -> None:
    retried = Retried(error, error)
    assert await retried() == ["a", "b"]
    assert (len(retried.seen), retried.retries) == (3, 2)
    assert all(one is other for one, other in pairwise(retried.seen))  # each starts from the clean one


@pytest.mark.parametrize(
    "error", [InvalidRequest("no"), Unavailable("no key"), ModelError("302", retryable=False), ZeroDivisionError()]
)
@asynchronous
async def test_what_will_not_pass_is_tried_once(error: Exception) -> None:
    retried = Retried(error)
    with pytest.raises(type(error)) as caught:
        await retried()
    assert caught.value is error
    assert (len(retried.seen), retried.retries) == (1, 0)


@pytest.mark.parametrize("attempts", [1, 2, 5])
@asynchronous
async def test_after_the_last_attempt_the_last_error_is_told(attempts: int) -> None:
    errors = [ModelError(str(number)) for number in range(9)]
    retried = Retried(*errors, attempts=attempts)
    with pytest.raises(ModelError) as caught:
        await retried()
    assert caught.value is errors[attempts - 1]
    assert (len(retried.seen), retried.retries) == (attempts, attempts - 1)


@asynchronous
async def test_after_the_first_chunk_nothing_is_made_again() -> None:
    retried = Retried(["a", ModelError("cut")])
    with pytest.raises(ModelError, match="cut"):
        await retried()
    assert len(retried.seen) == 1


@asynchronous
async def test_no_pause_goes_over_the_deadline() -> None:
    retried = Retried(RateLimited("busy", retry_after=60.0), deadline=1.0)
    with pytest.raises(RateLimited) as caught:
        await retried()
    assert caught.value.retry_after == 60.0
    assert (len(retried.seen), retried.retries) == (1, 0)


@asynchronous
async def test_a_slow_failure_uses_up_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 4.0, 9.9999])  # at the begin, after the first failure, after the second
    monkeypatch.setattr(retry, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    retried = Retried(REFUSED, REFUSED, deadline=10.0)
    with pytest.raises(Unavailable):
        await retried()
    assert (len(retried.seen), retried.retries) == (2, 1)


@asynchronous
async def test_a_client_that_leaves_during_a_pause_ends_it() -> None:
    retried = Retried(RateLimited("busy", retry_after=60.0), deadline=100.0)
    task = asyncio.create_task(retried())
    await until(lambda: retried.retries == 1)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert len(retried.seen) == 1


def test_pauses_are_a_random_part_of_spans_that_double() -> None:
    policy = Retrying(attempts=9, backoff=0.5)
    for attempt, span in [(1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0)]:
        pauses = [pause_before_next(ModelError("no"), attempt, policy) or 0.0 for _ in range(200)]
        assert 0 <= min(pauses) < span / 4
        assert span * 3 / 4 < max(pauses) <= span


def test_a_throttle_that_says_no_time_is_spread_like_any_other() -> None:
    pauses = {pause_before_next(RateLimited("busy"), 1, Retrying()) for _ in range(20)}
    assert len(pauses) == 20


@pytest.mark.parametrize("seconds", [0.0, 0.5, 7.0])
def test_what_the_upstream_says_of_its_own_time_holds(seconds: float) -> None:
    for error in (RateLimited("busy", retry_after=seconds), Unavailable("503", retry_after=seconds, retryable=True)):
        assert pause_before_next(error, 2, Retrying(backoff=0.001)) == seconds


def test_it_takes_no_options() -> None:
    with pytest.raises(SchemaError, match="attempts: unknown field"):
        create({"attempts": 3}, Context())
