"""Requests over HTTP, plain and streaming: raw asyncio protocols in a closed loop, every answer counted exactly."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import msgspec

from benchmarks.clients import http1
from benchmarks.clients.base import HANGS, Meter, Watched, WrongAnswer, main
from benchmarks.outcome import Outcome, quantiles

SLICE = 256 * 1024
KEPT = 512  # bytes of a body's end, to find a marker that came in two pieces, and the mark of the end


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask, how often, and how a right answer is told."""

    port: int
    path: str
    body: str  # the file that holds it
    marker: str  # found once per chunk; a plain answer is one chunk
    chunks: int  # that each answer must have, not one more or less
    end: str  # what the last bytes of an answer must hold
    accept: str
    watched: Watched
    headers: dict[str, str] = {}
    clients: int = 1
    seconds: float = 0  # no new request after that; 0: only `repeats` counts
    repeats: int = 1_000_000  # requests of each client
    ramp: float = 0  # seconds over which the clients begin
    unmeasured: int = 0  # first answers of each client whose times do not count


class Load:
    """What all clients share: the plan, the clock, the records."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        body = Path(plan.body).read_bytes()
        self.request = http1.request(plan.port, plan.path, body, plan.accept, plan.headers)
        self.marker = plan.marker.encode()
        self.end = plan.end.encode()
        self.deadline = float("inf")
        self.answers = 0
        self.whole: list[float] = []
        self.first: list[float] = []
        self.silence = 0.0
        self.running = plan.clients
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, why: str) -> None:
        if not self.over.done():
            self.over.set_exception(WrongAnswer(f"answer {self.answers + 1}: {why}"))

    def leave(self) -> None:
        self.running -= 1
        if not self.running and not self.over.done():
            self.over.set_result(None)


class Client(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._asked = 0  # requests so far
        self._left = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._sending: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        if not self._left:
            self._load.fail(f"the server closed the connection ({exc})")

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def ask(self) -> None:
        self._answer = http1.AnswerReader()
        self._rest = b""
        self._chunks = 0
        self._asked += 1
        self._since = self._last = time.perf_counter()
        request = self._load.request
        if len(request) <= SLICE:
            self._transport.write(request)
        else:
            self._sending = asyncio.get_running_loop().create_task(self._send(memoryview(request)))

    async def _send(self, request: memoryview) -> None:
        """In slices as the socket takes them: one write of 4 MB would copy what is left of it again and again."""
        for at in range(0, len(request), SLICE):
            await self._writable.wait()
            self._transport.write(request[at : at + SLICE])

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        body = self._rest + self._answer.feed(data)
        new = body.count(self._load.marker) - self._rest.count(self._load.marker)
        self._rest = body[-KEPT:]
        if new:
            self._heard(now, new)
        if self._answer.done:
            self._finish(now)

    def _heard(self, now: float, new: int) -> None:
        load = self._load
        if self._asked > load.plan.unmeasured:
            if not self._chunks:
                load.first.append(now - self._since)
            elif now - self._last > load.silence:
                load.silence = now - self._last
        self._chunks += new
        self._last = now

    def _finish(self, now: float) -> None:
        load = self._load
        if self._answer.status != 200 or self._chunks != load.plan.chunks or load.end not in self._rest:
            load.fail(f"status {self._answer.status}, {self._chunks} chunks, ended with {self._rest[-300:]!r}")
            return
        load.answers += 1
        if self._asked > load.plan.unmeasured:
            load.whole.append(now - self._since)
        if now >= load.deadline or self._asked >= load.plan.repeats:
            self._left = True
            load.leave()
        else:
            self.ask()

    def close(self) -> None:
        self._left = True
        self._transport.close()


async def run(plan: Plan) -> Outcome:
    load, loop = Load(plan), asyncio.get_running_loop()
    clients = []
    for _ in range(plan.clients):
        _, client = await loop.create_connection(lambda: Client(load), "127.0.0.1", plan.port)
        clients.append(client)
    meter = Meter(plan.watched)
    load.deadline = time.perf_counter() + (plan.seconds or float("inf"))
    for number, client in enumerate(clients):
        loop.call_later(plan.ramp * number / plan.clients, client.ask)
    try:
        await asyncio.wait_for(load.over, plan.seconds + plan.ramp + HANGS)
    except TimeoutError:
        raise WrongAnswer(f"{load.running} of {plan.clients} clients got no answer within {HANGS} s") from None
    finally:
        outcome = meter.outcome(
            answers=load.answers,
            chunks=load.answers * plan.chunks,
            whole_ms=quantiles(load.whole),
            first_ms=quantiles(load.first),
            silence_ms=load.silence * 1000,
        )
        for client in clients:
            client.close()
    return outcome


if __name__ == "__main__":
    sys.exit(main(Plan, run))
