"""limit: so many calls at once, a short queue, and every permit given back whatever happens."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipeline.errors import ModelError, RateLimited
from pipeline.messages import Events, Inference
from pipeline.presets import Concurrency
from pipeline.schema import SchemaError
from pipeline.stage import Context
from pipeline.stages.limit import Gate, Limit, create
from tests.aio import asynchronous
from tests.pipeline.making import all_of, asked, play

ONE = Concurrency(calls=1, queue=0)


class Limited:
    """The stage before a model that plays `steps`; `running` and `most` count what passed."""

    def __init__(self, *steps: Any, calls: int | None = 1, queue: int = 8) -> None:
        self.context = Context()
        self.stage = Limit(self.context)
        self.steps = steps
        self.concurrency = {"calls": calls, "queue": queue}
        self.order: list[str] = []

    async def __call__(self, text: str = "Hi") -> Events:
        return await self.stage(asked(text=text, concurrency=self.concurrency), self._proceed)

    def start(self, text: str = "Hi") -> asyncio.Task[Events]:
        return asyncio.create_task(self(text))

    @property
    def gate(self) -> Gate:
        gate = self.context.state("m")["limit"]
        assert isinstance(gate, Gate)
        return gate

    async def _proceed(self, inference: Inference) -> Events:
        self.order.append(inference.messages[0].text)
        for step in self.steps:
            if isinstance(step, BaseException):
                raise step
            await step.wait()
        return Events(play(["a", "b"]))

    async def is_empty(self) -> bool:
        """Whether every place can be had at once."""
        assert (self.gate.running, self.gate.waiting) == (0, 0)
        return True


async def turns(count: int = 3) -> None:
    """Lets every task run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


@asynchronous
async def test_a_call_keeps_its_place_until_its_events_are_closed() -> None:
    limited = Limited(queue=0)
    events = await limited()
    assert await anext(aiter(events)) == ["a"]
    with pytest.raises(RateLimited):
        await limited()
    await events.aclose()
    assert await all_of(await limited()) == ["a", "b"]
    assert await limited.is_empty()


@asynchronous
async def test_those_who_wait_come_in_in_the_order_in_which_they_came() -> None:
    limited = Limited()
    first = await limited("first")
    waiting = [limited.start(name) for name in ("second", "third", "fourth")]
    await turns()
    assert limited.order == ["first"]
    await first.aclose()
    for task in waiting:
        await all_of(await task)
    assert limited.order == ["first", "second", "third", "fourth"]
    assert await limited.is_empty()


@asynchronous
async def test_a_full_queue_is_told_when_there_may_be_a_place() -> None:
    limited = Limited(calls=2, queue=1)
    held = [await limited(), await limited()]
    waiting = limited.start()
    await turns()
    with pytest.raises(RateLimited, match="takes no more calls at the moment, and 1 are waiting already") as caught:
        await limited()
    assert caught.value.retry_after == 1.0
    for events in [*held]:
        await events.aclose()
    await (await waiting).aclose()
    assert await limited.is_empty()


@asynchronous
async def test_the_time_until_a_place_is_free_follows_how_long_calls_have_taken() -> None:
    gate = Gate()
    for _ in range(60):
        await gate.enter("", ONE)
        gate.leave("", seconds=30.0)
    await gate.enter("", ONE)
    with pytest.raises(RateLimited) as caught:
        await gate.enter("", ONE)
    assert caught.value.retry_after == 30


@asynchronous
async def test_an_error_before_the_first_event_gives_the_place_back() -> None:
    limited = Limited(ModelError("no"), queue=0)
    for _ in range(3):
        with pytest.raises(ModelError):
            await limited()
    assert await limited.is_empty()


@asynchronous
async def test_a_close_before_the_first_event_gives_the_place_back() -> None:
    limited = Limited(queue=0)
    for _ in range(3):
        await (await limited()).aclose()
    assert await limited.is_empty()


@asynchronous
async def test_one_that_is_cancelled_while_it_proceeds_gives_the_place_back() -> None:
    limited = Limited(asyncio.Event())
    task = limited.start()
    await turns()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert await limited.is_empty()


@asynchronous
async def test_one_that_is_cancelled_while_it_waits_leaves_the_queue() -> None:
    limited = Limited()
    held, waiting = await limited(), limited.start()
    await turns()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert limited.gate.waiting == 0
    await held.aclose()
    assert await limited.is_empty()


@asynchronous
async def test_one_that_is_cancelled_just_after_it_got_its_place_gives_it_to_the_next() -> None:
    limited = Limited()
    held = await limited()
    second, third = limited.start("second"), limited.start("third")
    await turns()
    await held.aclose()  # hands the place to the second, which has not run since
    second.cancel()
    await all_of(await third)
    assert second.cancelled()
    assert limited.order == ["Hi", "third"]
    assert await limited.is_empty()


@asynchronous
async def test_one_that_is_cancelled_just_before_it_would_get_a_place_is_passed_over() -> None:
    limited = Limited()
    held = await limited()
    second, third = limited.start("second"), limited.start("third")
    await turns()
    second.cancel()  # it is still in the queue when the place is handed on
    await held.aclose()
    await all_of(await third)
    assert second.cancelled()
    assert limited.order == ["Hi", "third"]
    assert await limited.is_empty()


@asynchronous
async def test_a_permit_that_is_released_twice_is_given_back_once() -> None:
    gate = Gate()
    permit = await gate.enter("", Concurrency(calls=2, queue=0))
    await gate.enter("", Concurrency(calls=2, queue=0))
    permit.release()
    permit.release()
    assert gate.running == 1


@asynchronous
async def test_a_raised_limit_lets_those_in_who_wait() -> None:
    limited = Limited()
    held, waiting = await limited("one"), limited.start("two")
    await turns()
    limited.concurrency["calls"] = 3
    newcomer = limited.start("three")
    await all_of(await waiting)
    await all_of(await newcomer)
    await held.aclose()
    assert await limited.is_empty()


@asynchronous
async def test_permits_outlive_the_stage() -> None:
    limited = Limited(queue=0)
    held = await limited()
    limited.stage = Limit(limited.context)
    with pytest.raises(RateLimited):
        await limited()
    await held.aclose()
    assert await limited.is_empty()


@asynchronous
async def test_without_calls_nothing_is_limited() -> None:
    limited = Limited(calls=None)
    events = [await limited() for _ in range(100)]
    assert len(limited.order) == 100
    for one in events:
        await one.aclose()


def test_it_takes_no_options() -> None:
    with pytest.raises(SchemaError, match="calls: unknown field"):
        create({"calls": 3}, Context())
