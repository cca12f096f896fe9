"""IdleTimer: callbacks, reset and pause."""

from __future__ import annotations

import asyncio

from pipeline.events.idle_timer import IdleTimer
from tests.async_tests import async_test

SHORT = 0.02


class CallRecorder:
    """Records the times of its calls; they can be waited for."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._called = asyncio.Event()

    def __call__(self) -> None:
        self.times.append(asyncio.get_running_loop().time())
        self._called.set()

    async def wait_for_next(self) -> None:
        self._called.clear()
        await self._called.wait()


@async_test
async def test_idle_timer_calls_back_after_each_idle_period() -> None:
    callback, started_at = CallRecorder(), asyncio.get_running_loop().time()
    with IdleTimer(SHORT, callback):
        await callback.wait_for_next()
        await callback.wait_for_next()
    first, second = callback.times
    assert first - started_at >= SHORT * 0.9
    assert second - first >= SHORT * 0.9


@async_test
async def test_reset_restarts_idle_period() -> None:
    callback, loop = CallRecorder(), asyncio.get_running_loop()
    reset_at: list[float] = []

    def reset() -> None:
        timer.reset()
        reset_at.append(loop.time())

    with IdleTimer(SHORT, callback) as timer:
        loop.call_later(SHORT / 2, reset)
        await callback.wait_for_next()
    assert callback.times[0] - reset_at[0] >= SHORT * 0.9


@async_test
async def test_pause_stops_counting_until_reset() -> None:
    callback, loop = CallRecorder(), asyncio.get_running_loop()
    with IdleTimer(SHORT, callback) as timer:
        timer.pause()
        resumed = asyncio.Event()
        loop.call_later(3 * SHORT, resumed.set)
        await resumed.wait()
        assert callback.times == []
        timer.reset()
        reset_at = loop.time()
        await callback.wait_for_next()
    assert callback.times[0] - reset_at >= SHORT * 0.9


@async_test
async def test_idle_timer_never_calls_back_after_exit() -> None:
    callback, elapsed = CallRecorder(), asyncio.Event()
    with IdleTimer(SHORT / 4, callback):
        pass
    asyncio.get_running_loop().call_later(SHORT, elapsed.set)
    await elapsed.wait()
    assert callback.times == []
