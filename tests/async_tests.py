"""Async tests: each runs in a loop of its own, with a deadline."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

DEADLINE = 10.0  # seconds; a test that waits for what never comes fails by this, not by the whole run's timeout
SLOW_DEADLINE = 50.0  # seconds


def async_test(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Makes an async test function one that pytest can call; its fixtures and parameters stay as they are."""
    return _within(DEADLINE, test)


def slow_async_test(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """The same with a longer deadline, for a test that starts several processes or sends 100,000 events and more."""
    return _within(SLOW_DEADLINE, test)


def _within(seconds: float, test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(within_deadline(test(*args, **kwargs), seconds))

    return run


async def within_deadline(awaitable: Awaitable[T], seconds: float = DEADLINE) -> T:
    """The awaitable's result, if it comes before the deadline."""
    async with asyncio.timeout(seconds):
        return await awaitable


async def wait_until(condition: Callable[[], object]) -> None:
    """Returns once `condition` holds, for what tells nobody that it has changed."""
    while not condition():  # noqa: ASYNC110 - nothing signals the condition
        await asyncio.sleep(0.001)
