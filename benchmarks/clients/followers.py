"""A load client: followers of a log, each on its own WebSocket, and the writer of its lines.

With a gap, each line is written that long after the one before. Without, it is written when the first follower has the
last one: the server then always has a line to deliver, and delivers each line alone.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import sys
import time
from typing import Any

import msgspec

from benchmarks.clients import websocket
from benchmarks.clients.base import HANG_TIMEOUT, CostMeter, MeasuredProcesses, WrongResponse, main
from benchmarks.outcome import Outcome, quantiles

STAMP = re.compile(rb"@(\d+[.,]\d+)@")  # in each line: when it was written
MAX_STAMP_LENGTH = 32  # bytes: a stamp may be split over two reads
CONNECT_BATCH = 100  # handshakes at once
WARM_UP_LINES = 10  # not measured: a script and its supervisor have just started


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    port: int
    path: str
    lines_file: str  # a named pipe, or the log itself
    line: str  # the text of each line; {stamp} becomes a timestamp
    processes: MeasuredProcesses
    followers: int
    seconds: float
    gap: float = 0  # mean seconds between two lines


class FollowedLog:
    """The written lines, and how many followers have received them."""

    def __init__(self, plan: Plan, fd: int) -> None:
        self._plan = plan
        self._fd = fd
        self._first_delivery = asyncio.Event()  # one follower has received the last line
        self.written = 0
        self.deliveries = 0
        self.delivery_seconds: list[float] = []  # from the writing of a line to its receipt by a follower
        self.all_delivered = asyncio.Event()
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, reason: str) -> None:
        if not self.failure.done():
            self.failure.set_exception(WrongResponse(reason))

    def on_line(self, stamp: bytes, count: int) -> None:
        """A follower has received its line number `count`."""
        self.delivery_seconds.append(time.time() - float(stamp.replace(b",", b".")))
        self.deliveries += 1
        if count == self.written:
            self._first_delivery.set()
        if self.deliveries == self.written * self._plan.followers:
            self.all_delivered.set()

    async def write_warm_up_lines(self) -> None:
        """Write lines whose deliveries do not count. Raises WrongResponse."""
        for _ in range(WARM_UP_LINES):
            self._write_line()
            await self._wait_for(self.all_delivered)
            await asyncio.sleep(self._plan.gap)
        self.delivery_seconds.clear()

    async def write(self, seconds: float) -> None:
        """Write lines for `seconds`, and wait until all followers have the last. Raises WrongResponse."""
        deadline, gaps = time.perf_counter() + seconds, random.Random(1)  # noqa: S311 - not a secret
        while time.perf_counter() < deadline and not self.failure.done():
            self._write_line()
            if self._plan.gap:
                await asyncio.sleep(self._plan.gap * gaps.uniform(0.5, 1.5))
            else:
                await self._wait_for(self._first_delivery)
        await self._wait_for(self.all_delivered)

    def _write_line(self) -> None:
        self.written += 1
        self._first_delivery.clear()
        self.all_delivered.clear()
        os.write(self._fd, self._plan.line.replace("{stamp}", f"@{time.time():.6f}@").encode() + b"\n")

    async def _wait_for(self, event: asyncio.Event) -> None:
        waiter = asyncio.ensure_future(event.wait())
        waiters: list[asyncio.Future[Any]] = [waiter, self.failure]
        await asyncio.wait(waiters, timeout=HANG_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        waiter.cancel()
        if self.failure.done():
            self.failure.result()
        if not event.is_set():
            counts = f"{self.deliveries} deliveries of {self.written} lines"
            raise WrongResponse(f"{counts}, and no more for {HANG_TIMEOUT} s")


class Follower:
    def __init__(self, log: FollowedLog) -> None:
        self._log = log
        self._tail = b""
        self._count = 0

    def on_data(self, data: bytes) -> None:
        previous = self._tail
        data = previous + data
        self._tail = data[-MAX_STAMP_LENGTH:]
        for match in STAMP.finditer(data):
            if match.end() > len(previous):
                self._count += 1
                self._log.on_line(match[1], self._count)


async def run(plan: Plan) -> Outcome:
    # Opening a named pipe waits for its reader.
    fd = await asyncio.to_thread(os.open, plan.lines_file, os.O_WRONLY | os.O_APPEND)
    log, sockets = FollowedLog(plan, fd), []
    try:
        for start in range(0, plan.followers, CONNECT_BATCH):
            batch = range(start, min(start + CONNECT_BATCH, plan.followers))
            connecting = (websocket.connect(plan.port, plan.path, Follower(log).on_data, log.fail) for _ in batch)
            sockets += await asyncio.gather(*connecting)
        await log.write_warm_up_lines()
        meter = CostMeter(plan.processes)
        await log.write(plan.seconds)
        count, latency_ms = len(log.delivery_seconds), quantiles(log.delivery_seconds)
        return meter.outcome(responses=count // plan.followers, chunks=count, latency_ms=latency_ms)
    finally:
        for socket in sockets:
            socket.close()
        os.close(fd)


if __name__ == "__main__":
    sys.exit(main(Plan, run))
