"""A few workers of one kind: a question goes to one that is idle, and waits where none is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from pipeline.workers.process import WorkerProcess


class WorkerPool:
    """Each worker has one question at a time, and is started by its first."""

    def __init__(self, module: str, size: int) -> None:
        self._workers = [WorkerProcess(module) for _ in range(size)]
        # Last in, first out: one that has run already is taken before one that would have to be started.
        self._idle: asyncio.LifoQueue[WorkerProcess] = asyncio.LifoQueue()
        for worker in self._workers:
            self._idle.put_nowait(worker)

    def __iter__(self) -> Iterator[WorkerProcess]:
        return iter(self._workers)

    async def call(self, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The answer. `seconds` count from when a worker has it: TimeoutError. Raises WorkerDied too."""
        worker = await self._idle.get()
        try:
            return await worker.call(question, seconds)
        finally:
            self._idle.put_nowait(worker)

    async def close(self) -> None:
        for worker in self._workers:
            await worker.close()
