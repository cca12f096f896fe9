"""Many token streams on one WebSocket, each in a closed loop: what one stream ended, the next one takes its place."""

from __future__ import annotations

import asyncio
import re
import sys

import msgspec

from benchmarks.clients import websocket
from benchmarks.clients.base import HANGS, Meter, Watched, WrongAnswer, main
from benchmarks.outcome import Outcome

CHUNK = b'"type":"chunk"'
COMPLETE = re.compile(rb'"type":"complete","seq":(\d+)}')
ERROR = b'"type":"error"'
KEPT = 64  # bytes of what came last: a marker may be cut in two
BESIDE = 2  # events of a stream before its `complete` that are no chunks: `start` and `result`


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    port: int
    request: dict[str, object]  # an `infer`, without its id
    chunks: int  # that each answer must have
    watched: Watched
    streams: int  # at once
    seconds: float  # no new request after that


class Tokens:
    """All streams of the socket. Each one's last `seq` says whether it was whole, all chunks together are counted."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._rest = b""
        self._asked = 0
        self.chunks = 0
        self.ended = 0
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.socket: websocket.Socket
        self.meter: Meter

    def ask(self) -> None:
        self._asked += 1
        self.socket.send(msgspec.json.encode({"op": "infer", "id": self._asked, **self._plan.request}))

    def heard(self, data: bytes) -> None:
        seen, self._rest = self._rest, data[-KEPT:] if len(data) >= KEPT else (self._rest + data)[-KEPT:]
        data = seen + data
        self.chunks += data.count(CHUNK) - seen.count(CHUNK)
        if ERROR in data:
            self.fail(f"an error among the events: {data[data.index(ERROR) :][:300]!r}")
        for found in COMPLETE.finditer(data):
            if found.end() > len(seen):
                self._finish(int(found[1]))

    def _finish(self, seq: int) -> None:
        if seq != self._plan.chunks + BESIDE:
            self.fail(f"a stream ended at seq {seq}")
        self.ended += 1
        if self.meter.seconds < self._plan.seconds:
            self.ask()
        elif self.ended == self._asked and not self.over.done():
            self.over.set_result(None)

    def fail(self, why: str) -> None:
        if not self.over.done():
            self.over.set_exception(WrongAnswer(why))


async def run(plan: Plan) -> Outcome:
    tokens = Tokens(plan)
    tokens.socket = await websocket.connect(plan.port, "/ws", tokens.heard, tokens.fail)
    tokens.meter = Meter(plan.watched)
    for _ in range(plan.streams):
        tokens.ask()
    try:
        await asyncio.wait_for(tokens.over, plan.seconds + HANGS)
    except TimeoutError:
        raise WrongAnswer(f"after {tokens.ended} streams nothing more came within {HANGS} s") from None
    finally:
        outcome = tokens.meter.outcome(answers=tokens.ended, chunks=tokens.chunks)
        tokens.socket.close()
    if tokens.chunks != tokens.ended * plan.chunks:
        raise WrongAnswer(f"{tokens.chunks} chunks in {tokens.ended} streams of {plan.chunks}")
    return outcome


if __name__ == "__main__":
    sys.exit(main(Plan, run))
