"""Async tests: each runs in a loop of its own, with a deadline."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

DEADLINE = 10.0  # seconds; a test that waits for what never comes fails by this, not by the whole run's timeout


def asynchronous(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Makes an async test function one that pytest can call; its fixtures and parameters stay as they are."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(soon(test(*args, **kwargs)))

    return run


async def soon(awaitable: Awaitable[T]) -> T:
    """The awaitable's result, if it comes before the deadline."""
    async with asyncio.timeout(DEADLINE):
        return await awaitable


async def comes_true(condition: Callable[[], object]) -> None:
    """Returns once `condition` holds, for what tells nobody that it has changed."""
    while not condition():  # noqa: ASYNC110 - as said
        await asyncio.sleep(0.001)
