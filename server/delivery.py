"""From a cursor to a sink: the one loop by which every event reaches a client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from pipeline.messages import Failure, Result
from pipeline.silence import SilenceTimer
from pipeline.streams import Record

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


class Cursor(Protocol[T_co]):
    """A reader's place in a log: of a stream's records, or of a job's output."""

    position: int

    @property
    def ended(self) -> bool: ...

    async def read(self) -> Sequence[T_co]:
        """What came since the last read; waits where that is nothing. Empty when `nudge`d, and at the end."""
        ...

    def nudge(self) -> None: ...


class Sink(Protocol[T_contra]):
    """Where events go. Both wait until the client has room for more."""

    async def write(self, batch: Sequence[T_contra], first: int) -> None:
        """`first` is the position of the batch's first record: its seq, in a stream."""
        ...

    async def heartbeat(self) -> None: ...


async def deliver(cursor: Cursor[T], sink: Sink[T], heartbeat: float) -> None:
    """Writes what the cursor reads, to the log's end; a heartbeat after so many seconds of silence."""
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
