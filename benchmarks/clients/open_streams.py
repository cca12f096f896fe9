"""A load client: many streams that stay open, each with a few chunks at first, and their memory at the server."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from pathlib import Path

import msgspec

from benchmarks import processes
from benchmarks.clients import http1
from benchmarks.clients.base import HANG_TIMEOUT, CostMeter, MeasuredProcesses, WrongResponse, main
from benchmarks.outcome import Outcome, quantiles

STAMP = re.compile(rb"@(\d+\.\d+)@")  # in each later chunk: the time of its writing
OVERLAP = 64  # bytes: a marker may be split over two reads


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    port: int
    path: str
    body: str  # a file
    accept: str
    marker: str  # occurs once in each chunk
    chunks: int  # that each stream gets immediately
    processes: MeasuredProcesses
    streams: int
    seconds: float  # for which they are held open


class StreamGroup:
    """State that all streams share."""

    def __init__(self, plan: Plan) -> None:
        self.request = http1.build_request(plan.port, plan.path, Path(plan.body).read_bytes(), plan.accept)
        self.marker = plan.marker.encode()
        self.chunks = plan.chunks
        self.missing = plan.streams
        self.delivery_seconds: list[float] = []  # from the writing of a later chunk at the upstream to its receipt
        self.all_started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, reason: str) -> None:
        for future in (self.all_started, self.failure):
            if not future.done():
                future.set_exception(WrongResponse(reason))

    def on_started(self) -> None:
        self.missing -= 1
        if not self.missing and not self.all_started.done():
            self.all_started.set_result(None)


class OpenStream(asyncio.Protocol):
    def __init__(self, group: StreamGroup) -> None:
        self._group = group
        self._reader = http1.ResponseReader()
        self._tail = b""
        self._chunks = 0
        self._is_closing = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._group.request)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_closing:
            self._group.fail(f"the server closed a stream ({exc})")

    def data_received(self, data: bytes) -> None:
        received_at, group, previous = time.time(), self._group, self._tail
        body = previous + self._reader.feed(data)
        self._tail = body[-OVERLAP:]
        if self._reader.status not in (0, 200) or self._reader.done:
            group.fail(f"a stream ended, with status {self._reader.status} and {body[-300:]!r}")
            return
        previous_chunks = self._chunks
        self._chunks += body.count(group.marker) - previous.count(group.marker)
        if previous_chunks < group.chunks <= self._chunks:
            group.on_started()
        new_stamps = (match[1] for match in STAMP.finditer(body) if match.end() > len(previous))
        group.delivery_seconds += [received_at - float(stamp) for stamp in new_stamps]

    def close(self) -> None:
        self._is_closing = True
        self._transport.close()


async def run(plan: Plan) -> Outcome:
    group, loop, streams = StreamGroup(plan), asyncio.get_running_loop(), []
    memory_before = processes.current_memory_mb(plan.processes.target)
    try:
        for _ in range(plan.streams):
            _, stream = await loop.create_connection(lambda: OpenStream(group), "127.0.0.1", plan.port)
            streams.append(stream)
        await _wait_until_started(group, plan)
        growth_mb = processes.current_memory_mb(plan.processes.target) - memory_before
        return await _hold(group, plan, growth_mb)
    finally:
        for stream in streams:
            stream.close()


async def _wait_until_started(group: StreamGroup, plan: Plan) -> None:
    try:
        await asyncio.wait_for(asyncio.shield(group.all_started), HANG_TIMEOUT)
    except TimeoutError:
        raise WrongResponse(f"{group.missing} of {plan.streams} streams got no {plan.chunks} chunks") from None


async def _hold(group: StreamGroup, plan: Plan, growth_mb: float) -> Outcome:
    meter = CostMeter(plan.processes)
    group.delivery_seconds.clear()
    await asyncio.wait([group.failure], timeout=plan.seconds)
    outcome = meter.outcome(
        responses=plan.streams,
        chunks=len(group.delivery_seconds),
        stream_kb=growth_mb * 1024 / plan.streams,
        latency_ms=quantiles(group.delivery_seconds),
    )
    if group.failure.done():
        group.failure.result()
    return outcome


if __name__ == "__main__":
    sys.exit(main(Plan, run))
