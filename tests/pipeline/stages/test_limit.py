"""limit: concurrent calls are limited, a short queue waits, and every permit is released whatever happens."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipeline.errors import ModelError, RateLimited
from pipeline.messages import EventStream, Inference
from pipeline.presets.schema import SchemaError
from pipeline.stage import Context
from pipeline.stages.limit import AdmissionController, Concurrency
from tests.async_tests import async_test
from tests.pipeline.factories import collect, create_stage, make_inference, play_steps

ONE_CALL = Concurrency(calls=1, queue=0)


class LimitScenario:
    """The stage in front of a model that plays `steps`; `order` has the texts of the admitted calls."""

    def __init__(self, *steps: Any, calls: int | None = 1, queue: int = 8) -> None:
        self.context = Context()
        self.stage = create_stage("limit", {}, self.context)
        self.steps = steps
        self.concurrency = {"calls": calls, "queue": queue}
        self.order: list[str] = []

    async def __call__(self, text: str = "Hi") -> EventStream:
        return await self.stage(make_inference(text=text, concurrency=self.concurrency), self._proceed)

    def start(self, text: str = "Hi") -> asyncio.Task[EventStream]:
        return asyncio.create_task(self(text))

    @property
    def controller(self) -> AdmissionController:
        return self.context.state("m", AdmissionController)

    async def _proceed(self, inference: Inference) -> EventStream:
        self.order.append(inference.messages[0].text)
        for step in self.steps:
            if isinstance(step, BaseException):
                raise step
            await step.wait()
        return EventStream(play_steps(["a", "b"]))

    def check_idle(self) -> None:
        """Assert that all permits are released and nothing is queued."""
        assert (self.controller.running, self.controller.waiting) == (0, 0)


async def run_ready_tasks(count: int = 3) -> None:
    """Let every ready task run."""
    for _ in range(count):
        await asyncio.sleep(0)


@async_test
async def test_permit_is_held_until_the_events_are_closed() -> None:
    scenario = LimitScenario(queue=0)
    events = await scenario()
    assert await anext(aiter(events)) == ["a"]
    with pytest.raises(RateLimited):
        await scenario()
    await events.aclose()
    assert await collect(await scenario()) == ["a", "b"]
    scenario.check_idle()


@async_test
async def test_queued_calls_are_admitted_in_order() -> None:
    scenario = LimitScenario()
    first = await scenario("first")
    waiting = [scenario.start(name) for name in ("second", "third", "fourth")]
    await run_ready_tasks()
    assert scenario.order == ["first"]
    await first.aclose()
    for task in waiting:
        await collect(await task)
    assert scenario.order == ["first", "second", "third", "fourth"]
    scenario.check_idle()


@async_test
async def test_full_queue_rejects_with_retry_after() -> None:
    scenario = LimitScenario(calls=2, queue=1)
    running = [await scenario(), await scenario()]
    waiting = scenario.start()
    await run_ready_tasks()
    with pytest.raises(RateLimited, match="takes no more calls at the moment, and 1 are waiting already") as caught:
        await scenario()
    assert caught.value.retry_after == 1.0
    for events in running:
        await events.aclose()
    await (await waiting).aclose()
    scenario.check_idle()


@async_test
async def test_retry_after_follows_the_mean_duration_of_calls() -> None:
    controller = AdmissionController()
    for _ in range(60):
        await controller.acquire("", ONE_CALL)
        controller.release("", seconds=30.0)
    await controller.acquire("", ONE_CALL)
    with pytest.raises(RateLimited) as caught:
        await controller.acquire("", ONE_CALL)
    assert caught.value.retry_after == 30


@async_test
async def test_error_before_first_event_releases_the_permit() -> None:
    scenario = LimitScenario(ModelError("no"), queue=0)
    for _ in range(3):
        with pytest.raises(ModelError):
            await scenario()
    scenario.check_idle()


@async_test
async def test_close_before_first_event_releases_the_permit() -> None:
    scenario = LimitScenario(queue=0)
    for _ in range(3):
        await (await scenario()).aclose()
    scenario.check_idle()


@async_test
async def test_cancel_while_proceeding_releases_the_permit() -> None:
    scenario = LimitScenario(asyncio.Event())
    task = scenario.start()
    await run_ready_tasks()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    scenario.check_idle()


@async_test
async def test_cancel_while_queued_leaves_the_queue() -> None:
    scenario = LimitScenario()
    running, waiting = await scenario(), scenario.start()
    await run_ready_tasks()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert scenario.controller.waiting == 0
    await running.aclose()
    scenario.check_idle()


@async_test
async def test_cancel_right_after_admission_admits_the_next_call() -> None:
    scenario = LimitScenario()
    running = await scenario()
    second, third = scenario.start("second"), scenario.start("third")
    await run_ready_tasks()
    await running.aclose()  # admits the second, whose task has not run since
    second.cancel()
    await collect(await third)
    assert second.cancelled()
    assert scenario.order == ["Hi", "third"]
    scenario.check_idle()


@async_test
async def test_cancel_right_before_admission_admits_the_next_call() -> None:
    scenario = LimitScenario()
    running = await scenario()
    second, third = scenario.start("second"), scenario.start("third")
    await run_ready_tasks()
    second.cancel()  # it is still in the queue when the permit is released
    await running.aclose()
    await collect(await third)
    assert second.cancelled()
    assert scenario.order == ["Hi", "third"]
    scenario.check_idle()


@async_test
async def test_permit_released_twice_counts_once() -> None:
    controller = AdmissionController()
    permit = await controller.acquire("", Concurrency(calls=2, queue=0))
    await controller.acquire("", Concurrency(calls=2, queue=0))
    permit.release()
    permit.release()
    assert controller.running == 1


@async_test
async def test_raised_limit_admits_queued_calls() -> None:
    scenario = LimitScenario()
    running, waiting = await scenario("one"), scenario.start("two")
    await run_ready_tasks()
    scenario.concurrency["calls"] = 3
    new_call = scenario.start("three")
    await collect(await waiting)
    await collect(await new_call)
    await running.aclose()
    scenario.check_idle()


@async_test
async def test_permits_outlive_the_stage() -> None:
    scenario = LimitScenario(queue=0)
    running = await scenario()
    scenario.stage = create_stage("limit", {}, scenario.context)
    with pytest.raises(RateLimited):
        await scenario()
    await running.aclose()
    scenario.check_idle()


@async_test
async def test_calls_of_null_limits_nothing() -> None:
    scenario = LimitScenario(calls=None)
    streams = [await scenario() for _ in range(100)]
    assert len(scenario.order) == 100
    for events in streams:
        await events.aclose()


def test_options_are_rejected() -> None:
    with pytest.raises(SchemaError, match="calls: unknown field"):
        create_stage("limit", {"calls": 3}, Context())
