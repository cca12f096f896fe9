"""From a cursor to a sink: the one loop by which every event reaches a client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pipeline.eventlog import Cursor
from pipeline.messages import Failure, Result
from pipeline.silence import SilenceTimer
from pipeline.streams import Record


class Sink(Protocol):
    """Where events go. Both wait until the client has room for more."""

    async def write(self, batch: Sequence[Record], first: int) -> None:
        """`first` is the seq of the batch's first record."""
        ...

    async def heartbeat(self) -> None: ...


async def deliver(cursor: Cursor[Record], sink: Sink, heartbeat: float) -> None:
    """Writes what the cursor reads, to the stream's end; a heartbeat after so many seconds of silence."""
    with SilenceTimer(heartbeat, cursor.nudge) as timer:
        while not cursor.ended:
            first = cursor.position
            batch = await cursor.read()
            if batch:
                await sink.write(batch, first)
            elif not cursor.ended:
                await sink.heartbeat()
            timer.heard()


async def opening(cursor: Cursor[Record], patience: float) -> Sequence[Record]:
    """The first records: up to what decides the answer's status, or as many as came within `patience` seconds."""
    batch: list[Record] = []
    with SilenceTimer(patience, cursor.nudge):
        while len(batch) < 2:  # the first is `start`, which decides nothing
            records = await cursor.read()
            batch.extend(records)
            if not records:
                break
    return batch


async def outcomes(cursor: Cursor[Record]) -> dict[str, Result | Failure]:
    """The stream folded: each model's result or failure."""
    found: dict[str, Result | Failure] = {}
    while not cursor.ended:
        for record in await cursor.read():
            if isinstance(record, Result | Failure):
                found[record.model] = record
    return found
