"""What every stage has to keep, whoever wrote it: what is opened is closed, once, and nothing stays.

All stages that `plugins.load()` finds are driven here, so a new one comes in by itself. One that can't be made without
options gets them in `OPTIONS`. The providers are in test_conformance_of_providers.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from pipeline import plugins
from pipeline.errors import ModelError
from pipeline.frames import EncodedFrame
from pipeline.messages import Call, Events, Inference, Reply
from pipeline.stage import Context, Stage
from tests.aio import asynchronous
from tests.pipeline.drawn import plain
from tests.pipeline.making import Counted, Ledger, asked, cancel, close, play

FOUND = plugins.load()

OPTIONS: Mapping[str, Mapping[str, Any]] = {"fit_frames": {"workers": 1}}
"""What a stage is made with, where it can't do without,
or where having one of a kind shows that it was not given back."""

LAST = "normalize_envelope"  # proceeds to nothing: it tells what a reply says

every_stage = pytest.mark.parametrize("name", sorted(FOUND.stages))


class Driven:
    """A stage, with counted parts on both sides: a provider for those that call one, and what follows it.

    What happens before the first event is `before`: an error, or an event that never comes.
    """

    def __init__(self, name: str, before: ModelError | asyncio.Event | None = None) -> None:
        self.ledger = Ledger()
        self.reached = asyncio.Event()
        provider = Counted("a", "b")
        provider.ledger = self.ledger
        context = Context({"counted": provider})
        try:
            self.stage: Stage = FOUND.stages[name](OPTIONS.get(name, {}), context)
        except (ValueError, LookupError) as error:
            pytest.fail(f"the stage {name!r} can't be made without options ({error}): give it some in OPTIONS, here")
        self._before = [] if before is None else [before]
        self._is_last = name == LAST

    async def run(self) -> Events:
        """One inference that gives every stage something to do: a picture to decode and to fit, a model to route to,
        one call at a time and nobody in the queue.
        """
        limits = {"frame_pixels": 100}
        frames = plain(20, 20), EncodedFrame(plain(21, 21).data, "frames[1]")
        inference = asked(*frames, limits=limits, concurrency={"calls": 1, "queue": 0})
        if self._is_last:
            reply = Reply(self._steps(), self.ledger.open(), streamed=True)
            inference = replace(inference, called=Call(reply, 0.0, 0.0))
        return await self.stage(inference, self._follow)

    async def _follow(self, inference: Inference) -> Events:
        self.reached.set()
        async for _ in play(self._before):
            pass
        close = [self.ledger.open()]
        if inference.called is not None:
            close.append(inference.called.reply.aclose)
        return Events(play(["a", "b"]), *close)

    async def _steps(self) -> Any:
        self.reached.set()
        async for batch in play([*self._before, "a", "b"]):
            yield batch

    async def check(self) -> None:
        """That all was closed once, that no permit stays, and after the stage's own close no task."""
        assert set(self.ledger.closed) <= {1}, f"closed so many times: {self.ledger.closed}"
        self._before = []
        self.ledger.closed.clear()
        events = await self.run()
        assert [event async for batch in events for event in batch][:2] == ["a", "b"]
        await events.aclose()
        assert self.ledger.closed
        assert set(self.ledger.closed) == {1}
        await close(self.stage)
        assert asyncio.all_tasks() == {asyncio.current_task()}


@every_stage
@asynchronous
async def test_a_stage_comes_to_what_follows_with_what_this_test_gives_it(name: str) -> None:
    driven = Driven(name)
    events = await driven.run()
    assert [event async for batch in events for event in batch][:2] == ["a", "b"]
    await events.aclose()
    assert driven.reached.is_set(), f"the stage {name!r} does not proceed: feed it what it needs, in `run`"
    await driven.check()


@every_stage
@asynchronous
async def test_an_early_error_of_what_follows_leaves_nothing(name: str) -> None:
    driven = Driven(name, ModelError("no"))
    try:
        events = await driven.run()
    except ModelError:
        pass
    else:  # it begins to tell before it fails, or it has another way to an answer
        assert [event async for event in events]
        await events.aclose()
    await driven.check()


@every_stage
@asynchronous
async def test_a_close_in_the_middle_leaves_nothing(name: str) -> None:
    driven = Driven(name)
    events = await driven.run()
    assert await anext(aiter(events)) == ["a"]
    await events.aclose()
    await driven.check()


@every_stage
@asynchronous
async def test_a_close_before_the_first_event_leaves_nothing(name: str) -> None:
    driven = Driven(name)
    await (await driven.run()).aclose()
    await driven.check()


@every_stage
@asynchronous
async def test_a_cancellation_before_the_first_event_leaves_nothing(name: str) -> None:
    driven = Driven(name, asyncio.Event())

    async def read() -> None:
        events = await driven.run()
        try:
            await anext(aiter(events))
        finally:
            await events.aclose()

    await cancel(read(), driven.reached.wait())
    await driven.check()
