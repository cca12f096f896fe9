"""The timer for silence."""

from __future__ import annotations

import asyncio

from pipeline.silence import SilenceTimer
from tests.aio import asynchronous

SHORT = 0.02


class Heard:
    """Counts calls, and can be waited for."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._called = asyncio.Event()

    def __call__(self) -> None:
        self.times.append(asyncio.get_running_loop().time())
        self._called.set()

    async def once_more(self) -> None:
        self._called.clear()
        await self._called.wait()


@asynchronous
async def test_it_calls_back_each_time_that_it_was_silent_for_so_long() -> None:
    heard, began = Heard(), asyncio.get_running_loop().time()
    with SilenceTimer(SHORT, heard):
        await heard.once_more()
        await heard.once_more()
    first, second = heard.times
    assert first - began >= SHORT * 0.9
    assert second - first >= SHORT * 0.9


@asynchronous
async def test_what_is_heard_begins_the_silence_anew() -> None:
    heard, loop = Heard(), asyncio.get_running_loop()
    spoken: list[float] = []

    def speak() -> None:
        timer.heard()
        spoken.append(loop.time())

    with SilenceTimer(SHORT, heard) as timer:
        loop.call_later(SHORT / 2, speak)
        await heard.once_more()
    assert heard.times[0] - spoken[0] >= SHORT * 0.9


@asynchronous
async def test_while_it_is_paused_no_silence_counts() -> None:
    heard, loop = Heard(), asyncio.get_running_loop()
    with SilenceTimer(SHORT, heard) as timer:
        timer.pause()
        resumed = asyncio.Event()
        loop.call_later(3 * SHORT, resumed.set)
        await resumed.wait()
        assert heard.times == []
        timer.heard()
        spoken = loop.time()
        await heard.once_more()
    assert heard.times[0] - spoken >= SHORT * 0.9


@asynchronous
async def test_after_its_context_it_is_silent_for_ever() -> None:
    heard, passed = Heard(), asyncio.Event()
    with SilenceTimer(SHORT / 4, heard):
        pass
    asyncio.get_running_loop().call_later(SHORT, passed.set)
    await passed.wait()
    assert heard.times == []
