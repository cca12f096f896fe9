"""A timer for inactivity: between tokens, and on a connection that needs heartbeats."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self


class IdleTimer:
    """A context manager that calls `callback` each time that `reset` was not called for `seconds`.

    It compares times with one timer of the loop, so that `reset` costs only an assignment (docs/PERFORMANCE.md).
    """

    def __init__(self, seconds: float, callback: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._callback = callback
        self._last_reset: float | None = self._loop.time()  # None: paused
        self._timer: asyncio.TimerHandle | None = None

    def reset(self) -> None:
        """Start the idle time again from zero, also after `pause`."""
        self._last_reset = self._loop.time()

    def pause(self) -> None:
        """Do not count idle time until the next `reset`."""
        self._last_reset = None

    def __enter__(self) -> Self:
        self._timer = self._loop.call_later(self._seconds, self._check)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        now = self._loop.time()
        last_reset = now if self._last_reset is None else self._last_reset
        remaining = last_reset + self._seconds - now
        if remaining <= 0:
            self._last_reset, remaining = now, self._seconds
            self._callback()
        self._timer = self._loop.call_later(remaining, self._check)
