"""From a cursor to a writer: the one loop by which every event reaches a client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from pipeline.events.cursor import Cursor
from pipeline.events.idle_timer import IdleTimer
from pipeline.messages import Failure, Result
from pipeline.streams import StreamRecord

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)


class Writer(Protocol[T_contra]):
    """Writes events to a client. Both methods wait until the client has room for more."""

    async def write(self, batch: Sequence[T_contra], first: int) -> None:
        """`first` is the position of the batch's first record: its seq, in a stream."""
        ...

    async def heartbeat(self) -> None: ...


async def deliver(cursor: Cursor[T], writer: Writer[T], heartbeat: float) -> None:
    """Write what the cursor reads, to the log's end, and a heartbeat after each `heartbeat` seconds without events."""
    with IdleTimer(heartbeat, cursor.wake) as timer:
        while not cursor.ended:
            first = cursor.position
            batch = await cursor.read()
            if batch:
                await writer.write(batch, first)
            elif not cursor.ended:
                await writer.heartbeat()
            timer.reset()


async def read_opening(cursor: Cursor[StreamRecord], max_wait: float) -> Sequence[StreamRecord]:
    """The first records: up to the one that decides the answer's status, or those of the first `max_wait` seconds."""
    batch: list[StreamRecord] = []
    with IdleTimer(max_wait, cursor.wake):
        while len(batch) < 2:  # the first is `start`, which does not decide it
            records = await cursor.read()
            batch.extend(records)
            if not records:
                break
    return batch


async def collect_outcomes(cursor: Cursor[StreamRecord]) -> dict[str, Result | Failure]:
    """Read the stream to its end: each model's result or failure."""
    outcomes: dict[str, Result | Failure] = {}
    while not cursor.ended:
        for record in await cursor.read():
            if isinstance(record, Result | Failure):
                outcomes[record.model] = record
    return outcomes
