"""A load client: HTTP requests, plain and streaming, in a closed loop on raw asyncio protocols."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import msgspec

from benchmarks.clients import http1
from benchmarks.clients.base import HANG_TIMEOUT, CostMeter, MeasuredProcesses, WrongResponse, main
from benchmarks.outcome import Outcome, quantiles

WRITE_SIZE = 256 * 1024
TAIL_SIZE = 512  # bytes of a body's end: a marker may be split over two reads, and `end` must be there


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The request, how often it is sent, and how a correct response is recognised."""

    port: int
    path: str
    body: str  # a file
    marker: str  # occurs once in each chunk; a plain response is one chunk
    chunks: int  # that each response must have exactly
    end: str  # must be in the last bytes of each response
    accept: str
    processes: MeasuredProcesses
    headers: dict[str, str] = {}
    clients: int = 1
    seconds: float = 0  # no new request after that; 0: no limit
    repeats: int = 1_000_000  # requests of each client
    ramp: float = 0  # seconds over which the clients start
    unmeasured: int = 0  # first responses of each client whose times do not count


class SharedLoad:
    """State that all connections share: the plan, the deadline, the results."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        body = Path(plan.body).read_bytes()
        self.request = http1.build_request(plan.port, plan.path, body, plan.accept, plan.headers)
        self.marker = plan.marker.encode()
        self.end = plan.end.encode()
        self.deadline = float("inf")
        self.responses = 0
        self.latencies: list[float] = []
        self.first_chunks: list[float] = []
        self.longest_gap = 0.0
        self.active_clients = plan.clients
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def fail(self, reason: str) -> None:
        if not self.finished.done():
            self.finished.set_exception(WrongResponse(f"answer {self.responses + 1}: {reason}"))

    def client_done(self) -> None:
        self.active_clients -= 1
        if not self.active_clients and not self.finished.done():
            self.finished.set_result(None)


class LoadConnection(asyncio.Protocol):
    """One client: a connection with one request at a time."""

    def __init__(self, load: SharedLoad) -> None:
        self._load = load
        self._requests = 0  # requests so far
        self._is_closing = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._send_task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        if not self._is_closing:
            self._load.fail(f"the server closed the connection ({exc})")

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def send_request(self) -> None:
        self._reader = http1.ResponseReader()
        self._tail = b""
        self._chunks = 0
        self._requests += 1
        self._sent_at = self._last_chunk_at = time.perf_counter()
        request = self._load.request
        if len(request) <= WRITE_SIZE:
            self._transport.write(request)
        else:
            self._send_task = asyncio.get_running_loop().create_task(self._send(memoryview(request)))

    async def _send(self, request: memoryview) -> None:
        """Write in slices, as the socket takes them: one write of 4 MB would copy the unsent rest after each send."""
        for offset in range(0, len(request), WRITE_SIZE):
            await self._writable.wait()
            self._transport.write(request[offset : offset + WRITE_SIZE])

    def data_received(self, data: bytes) -> None:
        received_at = time.perf_counter()
        body = self._tail + self._reader.feed(data)
        new_chunks = body.count(self._load.marker) - self._tail.count(self._load.marker)
        self._tail = body[-TAIL_SIZE:]
        if new_chunks:
            self._on_chunks(received_at, new_chunks)
        if self._reader.done:
            self._finish(received_at)

    def _on_chunks(self, received_at: float, new_chunks: int) -> None:
        load = self._load
        if self._requests > load.plan.unmeasured:
            if not self._chunks:
                load.first_chunks.append(received_at - self._sent_at)
            elif received_at - self._last_chunk_at > load.longest_gap:
                load.longest_gap = received_at - self._last_chunk_at
        self._chunks += new_chunks
        self._last_chunk_at = received_at

    def _finish(self, received_at: float) -> None:
        load = self._load
        if self._reader.status != 200 or self._chunks != load.plan.chunks or load.end not in self._tail:
            load.fail(f"status {self._reader.status}, {self._chunks} chunks, ended with {self._tail[-300:]!r}")
            return
        load.responses += 1
        if self._requests > load.plan.unmeasured:
            load.latencies.append(received_at - self._sent_at)
        if received_at >= load.deadline or self._requests >= load.plan.repeats:
            self._is_closing = True
            load.client_done()
        else:
            self.send_request()

    def close(self) -> None:
        self._is_closing = True
        self._transport.close()


async def run(plan: Plan) -> Outcome:
    load, loop = SharedLoad(plan), asyncio.get_running_loop()
    clients = []
    for _ in range(plan.clients):
        _, client = await loop.create_connection(lambda: LoadConnection(load), "127.0.0.1", plan.port)
        clients.append(client)
    meter = CostMeter(plan.processes)
    load.deadline = time.perf_counter() + (plan.seconds or float("inf"))
    for number, client in enumerate(clients):
        loop.call_later(plan.ramp * number / plan.clients, client.send_request)
    try:
        await asyncio.wait_for(load.finished, plan.seconds + plan.ramp + HANG_TIMEOUT)
    except TimeoutError:
        clients_left = f"{load.active_clients} of {plan.clients} clients"
        raise WrongResponse(f"{clients_left} got no answer within {HANG_TIMEOUT} s") from None
    finally:
        outcome = meter.outcome(
            responses=load.responses,
            chunks=load.responses * plan.chunks,
            latency_ms=quantiles(load.latencies),
            first_chunk_ms=quantiles(load.first_chunks),
            longest_gap_ms=load.longest_gap * 1000,
        )
        for client in clients:
            client.close()
    return outcome


if __name__ == "__main__":
    sys.exit(main(Plan, run))
