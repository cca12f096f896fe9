"""The load client, a process of its own: raw asyncio protocols in a closed loop, every answer counted exactly.

`python -m benchmarks.load` takes a Plan as JSON on standard input and prints an Outcome as JSON.
"""

import asyncio
import gc
import os
import sys
import time
from pathlib import Path

import msgspec

from benchmarks import http1, proc

SLICE = 256 * 1024
KEPT = 512  # bytes of a body's end, to find a marker that came in two pieces, and the mark of the end
HANGS = 30  # seconds after which what has not been answered counts as hanging


class Plan(msgspec.Struct, frozen=True):
    """What to ask, how often, and how a right answer is told."""

    port: int
    path: str
    body: str  # the file that holds it
    marker: str  # found once per chunk; a plain answer is one chunk
    chunks: int  # that each answer must have, not one more or less
    end: str  # what the last bytes of an answer must hold
    measured: int  # the process whose costs are asked for
    upstream: int
    cores: list[int]  # where all of this runs, and nothing else should
    accept: str = "application/json"
    clients: int = 1
    seconds: float = 0  # no new request after that; 0: only `repeats` counts
    repeats: int = 1_000_000  # requests of each client
    ramp: float = 0  # seconds over which the clients begin
    unmeasured: int = 0  # first answers of each client whose times do not count


class Outcome(msgspec.Struct, frozen=True):
    answers: int
    chunks: int
    seconds: float
    cpu: float  # seconds that the measured process used
    peak_mb: float
    whole_ms: tuple[float, float]  # request to last byte: p50, p99
    first_ms: tuple[float, float]  # request to first chunk: p50, p99
    silence_ms: float  # the longest between two chunks of one answer
    client_busy: float  # share of the time that this process was busy
    upstream_busy: float
    others_busy: float  # CPU seconds per second that none of the three used: what disturbed


class WrongAnswer(Exception):
    """A figure from wrong answers is worth nothing: the first one ends the run."""


class Load:
    """What all clients share: the plan, the clock, the records."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.request = http1.request(plan.port, plan.path, Path(plan.body).read_bytes(), plan.accept)
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
    proc.reset_peak(plan.measured)
    before, start = costs(plan), time.perf_counter()
    load.deadline = start + (plan.seconds or float("inf"))
    for number, client in enumerate(clients):
        loop.call_later(plan.ramp * number / plan.clients, client.ask)
    try:
        await asyncio.wait_for(load.over, plan.seconds + plan.ramp + HANGS)
    except TimeoutError:
        raise WrongAnswer(f"{load.running} of {plan.clients} clients got no answer within {HANGS} s") from None
    finally:
        took, after = time.perf_counter() - start, costs(plan)
        for client in clients:
            client.close()
    return outcome(load, took, [new - old for old, new in zip(before, after, strict=True)])


def costs(plan: Plan) -> list[float]:
    """CPU seconds so far: of the measured process, the upstream, this one, and all that ran on these cores."""
    pids = (plan.measured, plan.upstream, os.getpid())
    return [*(proc.cpu_seconds(pid) for pid in pids), proc.cores_busy(plan.cores)]


def outcome(load: Load, took: float, used: list[float]) -> Outcome:
    cpu, upstream, mine, everything = used
    ours = mine + (upstream if load.plan.measured == load.plan.upstream else upstream + cpu)
    return Outcome(
        answers=load.answers,
        chunks=load.answers * load.plan.chunks,
        seconds=took,
        cpu=cpu,
        peak_mb=proc.peak_mb(load.plan.measured),
        whole_ms=(percentile(load.whole, 50), percentile(load.whole, 99)),
        first_ms=(percentile(load.first, 50), percentile(load.first, 99)),
        silence_ms=load.silence * 1000,
        client_busy=mine / took,
        upstream_busy=upstream / took,
        others_busy=max(0.0, everything - ours) / took,
    )


def percentile(seconds: list[float], percent: int) -> float:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1000


def main() -> int:
    plan = msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)
    gc.disable()
    try:
        result = asyncio.run(run(plan))
    except (WrongAnswer, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(msgspec.json.encode(result).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
