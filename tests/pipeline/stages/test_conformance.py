"""Rules for every stage, built-in or installed: everything that is opened is closed once, and nothing is leaked.

All stages that `plugins.load_plugins()` finds are tested, so a new stage is included without a change here. A stage
that needs options gets them in `OPTIONS`. The tests of providers are in tests/pipeline/providers/test_conformance.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from pipeline import plugins
from pipeline.errors import ModelError
from pipeline.media.frames import EncodedFrame
from pipeline.messages import EventStream, Inference, ModelResponse, UpstreamCall
from pipeline.stage import Context, Stage
from tests.async_tests import async_test
from tests.pipeline.factories import CloseCounter, FakeProvider, cancel_when, close_plugin, make_inference, play_steps
from tests.pipeline.media.make_pictures import plain_picture

INSTALLED = plugins.load_plugins()

OPTIONS: Mapping[str, Mapping[str, Any]] = {"fit_frames": {"workers": 1}}
"""Options of a stage that requires some, or that has a pool: with one process, a leaked process blocks the test."""

LAST_STAGE = "normalize_envelope"  # does not proceed: it makes events from the response

every_stage = pytest.mark.parametrize("name", sorted(INSTALLED.stages))


class StageDriver:
    """A stage between a provider and a next stage that count their closes.

    `before` happens before the first event: an error is raised, or an event that is never set is awaited.
    """

    def __init__(self, name: str, before: ModelError | asyncio.Event | None = None) -> None:
        self.close_counter = CloseCounter()
        self.proceeded = asyncio.Event()
        provider = FakeProvider("a", "b")
        provider.close_counter = self.close_counter
        context = Context({"fake": provider})
        try:
            self.stage: Stage = INSTALLED.create_stage(name, OPTIONS.get(name, {}), context)
        except (ValueError, LookupError) as error:
            pytest.fail(f"the stage {name!r} can't be made without options ({error}): add them to OPTIONS here")
        self._before = [] if before is None else [before]
        self._is_last = name == LAST_STAGE

    async def run(self) -> EventStream:
        """Run one inference with work for every stage: pictures to decode and to shrink, and a limit of one call."""
        limits = {"frame_pixels": 100}
        frames = plain_picture(20, 20), EncodedFrame(plain_picture(21, 21).data, "frames[1]")
        inference = make_inference(*frames, limits=limits, concurrency={"calls": 1, "queue": 0})
        if self._is_last:
            response = ModelResponse(self._play_response(), self.close_counter.track(), streamed=True)
            inference = replace(inference, started_call=UpstreamCall(response, 0.0, 0.0))
        return await self.stage(inference, self._proceed)

    async def _proceed(self, inference: Inference) -> EventStream:
        self.proceeded.set()
        async for _ in play_steps(self._before):
            pass
        close = [self.close_counter.track()]
        if inference.started_call is not None:
            close.append(inference.started_call.response.aclose)
        return EventStream(play_steps(["a", "b"]), *close)

    async def _play_response(self) -> Any:
        self.proceeded.set()
        async for batch in play_steps([*self._before, "a", "b"]):
            yield batch

    async def check_no_leaks(self) -> None:
        """Assert that all was closed once, that no permit is held, and that no task outlives the stage's close."""
        assert set(self.close_counter.counts) <= {1}, f"numbers of closes: {self.close_counter.counts}"
        self._before = []
        self.close_counter.counts.clear()
        events = await self.run()
        assert [event async for batch in events for event in batch][:2] == ["a", "b"]
        await events.aclose()
        assert self.close_counter.counts
        assert set(self.close_counter.counts) == {1}
        await close_plugin(self.stage)
        assert asyncio.all_tasks() == {asyncio.current_task()}


@every_stage
@async_test
async def test_stage_proceeds_with_the_inference_of_this_test(name: str) -> None:
    driver = StageDriver(name)
    events = await driver.run()
    assert [event async for batch in events for event in batch][:2] == ["a", "b"]
    await events.aclose()
    assert driver.proceeded.is_set(), f"the stage {name!r} does not proceed: give it what it needs in `run`"
    await driver.check_no_leaks()


@every_stage
@async_test
async def test_error_before_first_event_leaks_nothing(name: str) -> None:
    driver = StageDriver(name, ModelError("no"))
    try:
        events = await driver.run()
    except ModelError:
        pass
    else:  # the error is an event, or the stage answers in another way
        assert [event async for event in events]
        await events.aclose()
    await driver.check_no_leaks()


@every_stage
@async_test
async def test_close_after_first_event_leaks_nothing(name: str) -> None:
    driver = StageDriver(name)
    events = await driver.run()
    assert await anext(aiter(events)) == ["a"]
    await events.aclose()
    await driver.check_no_leaks()


@every_stage
@async_test
async def test_close_before_first_event_leaks_nothing(name: str) -> None:
    driver = StageDriver(name)
    await (await driver.run()).aclose()
    await driver.check_no_leaks()


@every_stage
@async_test
async def test_cancel_before_first_event_leaks_nothing(name: str) -> None:
    driver = StageDriver(name, asyncio.Event())

    async def read() -> None:
        events = await driver.run()
        try:
            await anext(aiter(events))
        finally:
            await events.aclose()

    await cancel_when(read(), driver.proceeded.wait())
    await driver.check_no_leaks()
