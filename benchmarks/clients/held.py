"""Many streams that stay open: each gets its first chunks at once, then all together few; what they cost in memory."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from pathlib import Path

import msgspec

from benchmarks import proc
from benchmarks.clients import http1
from benchmarks.clients.base import HANGS, Meter, Watched, WrongAnswer, main
from benchmarks.outcome import Outcome, quantiles

STAMP = re.compile(rb"@(\d+\.\d+)@")  # in each later chunk: when the upstream wrote it
KEPT = 64  # bytes of a body's end, where a marker may be cut in two


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    port: int
    path: str
    body: str  # the file that holds it
    accept: str
    marker: str  # found once per chunk
    chunks: int  # that each stream gets at once
    watched: Watched
    streams: int
    seconds: float  # for which they are held open


class Holder:
    """What all streams share."""

    def __init__(self, plan: Plan) -> None:
        self.request = http1.request(plan.port, plan.path, Path(plan.body).read_bytes(), plan.accept)
        self.marker = plan.marker.encode()
        self.chunks = plan.chunks
        self.missing = plan.streams
        self.ways: list[float] = []  # seconds from the upstream's writing of a later chunk to its receipt
        self.full: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, why: str) -> None:
        for future in (self.full, self.failed):
            if not future.done():
                future.set_exception(WrongAnswer(why))

    def filled(self) -> None:
        self.missing -= 1
        if not self.missing and not self.full.done():
            self.full.set_result(None)


class Stream(asyncio.Protocol):
    def __init__(self, holder: Holder) -> None:
        self._holder = holder
        self._answer = http1.AnswerReader()
        self._rest = b""
        self._chunks = 0
        self._left = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._holder.request)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._left:
            self._holder.fail(f"the server closed a stream ({exc})")

    def data_received(self, data: bytes) -> None:
        now, holder, seen = time.time(), self._holder, self._rest
        body = seen + self._answer.feed(data)
        self._rest = body[-KEPT:]
        if self._answer.status not in (0, 200) or self._answer.done:
            holder.fail(f"a stream ended, with status {self._answer.status} and {body[-300:]!r}")
            return
        before = self._chunks
        self._chunks += body.count(holder.marker) - seen.count(holder.marker)
        if before < holder.chunks <= self._chunks:
            holder.filled()
        holder.ways += [now - float(found[1]) for found in STAMP.finditer(body) if found.end() > len(seen)]

    def close(self) -> None:
        self._left = True
        self._transport.close()


async def run(plan: Plan) -> Outcome:
    holder, loop, streams = Holder(plan), asyncio.get_running_loop(), []
    before = proc.memory_mb(plan.watched.measured)
    try:
        for _ in range(plan.streams):
            _, stream = await loop.create_connection(lambda: Stream(holder), "127.0.0.1", plan.port)
            streams.append(stream)
        await _filled(holder, plan)
        grown = proc.memory_mb(plan.watched.measured) - before
        return await _held(holder, plan, grown)
    finally:
        for stream in streams:
            stream.close()


async def _filled(holder: Holder, plan: Plan) -> None:
    try:
        await asyncio.wait_for(asyncio.shield(holder.full), HANGS)
    except TimeoutError:
        raise WrongAnswer(f"{holder.missing} of {plan.streams} streams got no {plan.chunks} chunks") from None


async def _held(holder: Holder, plan: Plan, grown: float) -> Outcome:
    meter = Meter(plan.watched)
    holder.ways.clear()
    await asyncio.wait([holder.failed], timeout=plan.seconds)
    outcome = meter.outcome(
        answers=plan.streams,
        chunks=len(holder.ways),
        stream_kb=grown * 1024 / plan.streams,
        whole_ms=quantiles(holder.ways),
    )
    if holder.failed.done():
        holder.failed.result()
    return outcome


if __name__ == "__main__":
    sys.exit(main(Plan, run))
