"""A load client: many streams on one WebSocket, in a closed loop: a stream that ends is replaced by another."""

from __future__ import annotations

import asyncio
import re
import sys

import msgspec

from benchmarks.clients import websocket
from benchmarks.clients.base import HANG_TIMEOUT, CostMeter, MeasuredProcesses, WrongResponse, main
from benchmarks.outcome import Outcome

CHUNK = b'"type":"chunk"'
COMPLETE = re.compile(rb'"type":"complete","seq":(\d+)}')
ERROR = b'"type":"error"'
OVERLAP = 64  # bytes: a marker may be split over two reads
OTHER_EVENTS = 2  # of a stream before `complete`, beside its chunks: `start` and `result`


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    port: int
    request: dict[str, object]  # an `infer`, without its id
    chunks: int  # that each stream must have
    processes: MeasuredProcesses
    streams: int  # at once
    seconds: float  # no new request after that


class SocketStreams:
    """All streams of the socket: the last `seq` of each is checked, and their chunks are counted together."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._tail = b""
        self._requests = 0
        self.chunks = 0
        self.ended = 0
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.socket: websocket.WebSocketClient
        self.meter: CostMeter

    def send_request(self) -> None:
        self._requests += 1
        self.socket.send(msgspec.json.encode({"op": "infer", "id": self._requests, **self._plan.request}))

    def on_data(self, data: bytes) -> None:
        previous, self._tail = self._tail, data[-OVERLAP:] if len(data) >= OVERLAP else (self._tail + data)[-OVERLAP:]
        data = previous + data
        self.chunks += data.count(CHUNK) - previous.count(CHUNK)
        if ERROR in data:
            self.fail(f"an error among the events: {data[data.index(ERROR) :][:300]!r}")
        for match in COMPLETE.finditer(data):
            if match.end() > len(previous):
                self._finish(int(match[1]))

    def _finish(self, seq: int) -> None:
        if seq != self._plan.chunks + OTHER_EVENTS:
            self.fail(f"a stream ended at seq {seq}")
        self.ended += 1
        if self.meter.seconds < self._plan.seconds:
            self.send_request()
        elif self.ended == self._requests and not self.finished.done():
            self.finished.set_result(None)

    def fail(self, reason: str) -> None:
        if not self.finished.done():
            self.finished.set_exception(WrongResponse(reason))


async def run(plan: Plan) -> Outcome:
    streams = SocketStreams(plan)
    streams.socket = await websocket.connect(plan.port, "/ws", streams.on_data, streams.fail)
    streams.meter = CostMeter(plan.processes)
    for _ in range(plan.streams):
        streams.send_request()
    try:
        await asyncio.wait_for(streams.finished, plan.seconds + HANG_TIMEOUT)
    except TimeoutError:
        raise WrongResponse(f"after {streams.ended} streams nothing more came within {HANG_TIMEOUT} s") from None
    finally:
        outcome = streams.meter.outcome(responses=streams.ended, chunks=streams.chunks)
        streams.socket.close()
    if streams.chunks != streams.ended * plan.chunks:
        raise WrongResponse(f"{streams.chunks} chunks in {streams.ended} streams of {plan.chunks}")
    return outcome


if __name__ == "__main__":
    sys.exit(main(Plan, run))
