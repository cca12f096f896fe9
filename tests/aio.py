"""Async tests: each runs in a loop of its own, with a deadline."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

DEADLINE = 10.0  # seconds; a test that waits for what never comes fails by this, not by the whole run's timeout
UNHURRIED = 50.0  # seconds


def asynchronous(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Makes an async test function one that pytest can call; its fixtures and parameters stay as they are."""
    return _within(DEADLINE, test)


def unhurried(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """The same for a test that starts several processes: each takes a second or two where the machine is busy."""
    return _within(UNHURRIED, test)


def _within(seconds: float, test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(soon(test(*args, **kwargs), seconds))

    return run


async def soon(awaitable: Awaitable[T], seconds: float = DEADLINE) -> T:
    """The awaitable's result, if it comes before the deadline."""
    async with asyncio.timeout(seconds):
        return await awaitable


async def comes_true(condition: Callable[[], object]) -> None:
    """Returns once `condition` holds, for what tells nobody that it has changed."""
    while not condition():  # noqa: ASYNC110 - as said
        await asyncio.sleep(0.001)
