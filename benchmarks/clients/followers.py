"""Followers of a log, each on a WebSocket of its own, and the one who has its lines written.

With a gap each line comes that long after the one before; without, as soon as the first follower has it, so that the
server always has a line to hand out, and hands out each line alone.
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
from benchmarks.clients.base import HANGS, Meter, Watched, WrongAnswer, main
from benchmarks.outcome import Outcome, quantiles

STAMP = re.compile(rb"@(\d+[.,]\d+)@")  # in each line: when it was written
KEPT = 32  # bytes of what came last: a stamp may be cut in two
AT_ONCE = 100  # handshakes
UNMEASURED = 10  # lines at first: a script and its supervisor have just begun, and do what they do once


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    port: int
    path: str
    lines: str  # the file that takes them: a named pipe, or the log itself
    line: str  # of each; {stamp} stands for when it was written, where nobody else says that
    watched: Watched
    followers: int
    seconds: float
    gap: float = 0  # seconds between two lines, give or take half of it


class Log:
    """The lines so far, and who has them."""

    def __init__(self, plan: Plan, file: int) -> None:
        self._plan = plan
        self._file = file
        self._wanted = asyncio.Event()  # the first follower has the last line
        self.written = 0
        self.deliveries = 0
        self.ways: list[float] = []  # seconds from a line's writing to its receipt by each follower
        self.all_out = asyncio.Event()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, why: str) -> None:
        if not self.failed.done():
            self.failed.set_exception(WrongAnswer(why))

    def heard(self, stamp: bytes, count: int) -> None:
        """One follower has its line number `count`."""
        self.ways.append(time.time() - float(stamp.replace(b",", b".")))
        self.deliveries += 1
        if count == self.written:
            self._wanted.set()
        if self.deliveries == self.written * self._plan.followers:
            self.all_out.set()

    async def begin(self) -> None:
        """Lines that all get, and that don't count. Raises WrongAnswer."""
        for _ in range(UNMEASURED):
            self._write_one()
            await self._first(self.all_out)
            await asyncio.sleep(self._plan.gap)
        self.ways.clear()

    async def write(self, seconds: float) -> None:
        """Lines for so long, and until all have the last of them. Raises WrongAnswer."""
        deadline, gaps = time.perf_counter() + seconds, random.Random(1)  # noqa: S311 - not a secret
        while time.perf_counter() < deadline and not self.failed.done():
            self._write_one()
            if self._plan.gap:
                await asyncio.sleep(self._plan.gap * gaps.uniform(0.5, 1.5))
            else:
                await self._first(self._wanted)
        await self._first(self.all_out)

    def _write_one(self) -> None:
        self.written += 1
        self._wanted.clear()
        self.all_out.clear()
        os.write(self._file, self._plan.line.replace("{stamp}", f"@{time.time():.6f}@").encode() + b"\n")

    async def _first(self, event: asyncio.Event) -> None:
        waiting = asyncio.ensure_future(event.wait())
        either: list[asyncio.Future[Any]] = [waiting, self.failed]
        await asyncio.wait(either, timeout=HANGS, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self.failed.done():
            self.failed.result()
        if not event.is_set():
            raise WrongAnswer(f"{self.deliveries} deliveries of {self.written} lines, and no more for {HANGS} s")


class Follower:
    def __init__(self, log: Log) -> None:
        self._log = log
        self._rest = b""
        self._count = 0

    def heard(self, data: bytes) -> None:
        seen = self._rest
        data = seen + data
        self._rest = data[-KEPT:]
        for found in STAMP.finditer(data):
            if found.end() > len(seen):
                self._count += 1
                self._log.heard(found[1], self._count)


async def run(plan: Plan) -> Outcome:
    # Where it is a named pipe, this waits for who reads it.
    file = await asyncio.to_thread(os.open, plan.lines, os.O_WRONLY | os.O_APPEND)
    log, sockets = Log(plan, file), []
    try:
        for at in range(0, plan.followers, AT_ONCE):
            some = range(at, min(at + AT_ONCE, plan.followers))
            connecting = (websocket.connect(plan.port, plan.path, Follower(log).heard, log.fail) for _ in some)
            sockets += await asyncio.gather(*connecting)
        await log.begin()
        meter = Meter(plan.watched)
        await log.write(plan.seconds)
        counted = len(log.ways)
        return meter.outcome(answers=counted // plan.followers, chunks=counted, whole_ms=quantiles(log.ways))
    finally:
        for socket in sockets:
            socket.close()
        os.close(file)


if __name__ == "__main__":
    sys.exit(main(Plan, run))
