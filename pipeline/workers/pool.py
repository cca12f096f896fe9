"""A pool of helper processes of one kind: a message goes to an idle process or waits for one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from pipeline.workers.process import HelperProcess


class HelperPool:
    """A fixed number of helper processes. Each handles one message at a time and is started by its first."""

    def __init__(self, module: str, size: int) -> None:
        self._processes = [HelperProcess(module) for _ in range(size)]
        # Last in, first out: a running process is taken before one that would have to be started.
        self._idle: asyncio.LifoQueue[HelperProcess] = asyncio.LifoQueue()
        for process in self._processes:
            self._idle.put_nowait(process)

    def __iter__(self) -> Iterator[HelperProcess]:
        return iter(self._processes)

    async def call(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send one message and return the response.

        Raises TimeoutError `seconds` after a process has got the message, and HelperDied.
        """
        process = await self._idle.get()
        try:
            return await process.call(message, seconds)
        finally:
            self._idle.put_nowait(process)

    async def close(self) -> None:
        for process in self._processes:
            await process.close()
