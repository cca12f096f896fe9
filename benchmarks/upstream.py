"""A mock upstream, OpenAI-compatible and Bedrock's, made of ready bytes so that it is never the limit.

The model's name says what is answered: `plain` one JSON body, `plain-Xms` the same after X ms, `burst-N` N chunks as
fast as they are taken, in writes of 64 kB, `burst-N-by-K` the same with K chunks per write, `paced-N-Xms` N chunks, the
first at once and then one every X ms, `held-N-at-R` N chunks at once and then, over all such streams together, R a
second, each with the time of its writing, and no end.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import re
import sys
import time
from collections import deque

from benchmarks import answers
from benchmarks.clients.http1 import CHUNKED, END_OF_HEAD, LENGTH

KEPT = 8 * 1024  # of a body's beginning and of its end: `model` and `stream` stand in one of them
LIFETIME = 1800  # seconds; a forgotten mock ends by itself

MODEL = re.compile(rb'"model"\s*:\s*"([^"]*)"')
STREAMED = re.compile(rb'"stream"\s*:\s*true')
CONVERSE = re.compile(rb"POST /model/([^/ ]+)/converse-stream ")
KIND = re.compile(
    r"plain(?:-(?P<delay>\d+)ms)?|burst-(?P<burst>\d+)(?:-by-(?P<by>\d+))?"
    r"|paced-(?P<paced>\d+)-(?P<gap>\d+)ms|held-(?P<held>\d+)-at-(?P<rate>\d+)"
)

# One for all connections: asyncio reads into it and hands it over before it reads again.
BUFFER = memoryview(bytearray(1024 * 1024))

blocks = functools.cache(answers.blocks)
begun = functools.cache(lambda model, chunks: b"".join(answers.begun(model, chunks)))


class Held:
    """The streams that stay open: one of them after the other gets a chunk."""

    def __init__(self) -> None:
        self._streams: deque[tuple[asyncio.Transport, str]] = deque()
        self._sending: asyncio.Task[None] | None = None

    def add(self, transport: asyncio.Transport, model: str, rate: int) -> None:
        self._streams.append((transport, model))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send(1 / rate), name="held streams")

    async def _send(self, gap: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while open_ones := deque(one for one in self._streams if not one[0].is_closing()):
            self._streams = open_ones
            transport, model = self._streams[0]
            transport.write(answers.token(model, f"@{time.time():.6f}@"))
            self._streams.rotate(-1)
            due += gap
            await asyncio.sleep(due - loop.time())
        self._streams.clear()


class Connection(asyncio.BufferedProtocol):
    """One kept-alive connection: reads a request, looks at no more of its body than it must, answers."""

    def __init__(self, held: Held) -> None:
        self._loop = asyncio.get_running_loop()
        self._held = held
        self._head = b""
        self._body = b""
        self._missing = 0
        self._first = b""  # the request's first line, and its headers
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._flowing.set()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._flowing.clear()

    def resume_writing(self) -> None:
        self._flowing.set()

    def get_buffer(self, sizehint: int) -> memoryview:
        return BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        if len(self._body) >= KEPT and self._missing > nbytes + KEPT:
            self._missing -= nbytes  # the middle of a big body: counted, never looked at
            return
        data = bytes(BUFFER[:nbytes])
        if self._missing:
            self._take(data)
        else:
            self._take_head(self._head + data)

    def _take_head(self, data: bytes) -> None:
        end = data.find(END_OF_HEAD)
        if end < 0:
            self._head = data
            return
        self._head = b""
        first, rest = data[: end + 2], data[end + len(END_OF_HEAD) :]
        length = LENGTH.search(first)
        self._first = first
        if first.startswith(b"GET "):
            self._transport.write(answers.LISTED)
        elif length is None or CHUNKED.search(first):
            self._transport.write(answers.NO_LENGTH)
            self._transport.close()
        else:
            self._missing = int(length[1])
            self._take(rest)

    def _take(self, data: bytes) -> None:
        self._body += data
        self._missing -= len(data)
        if self._missing <= 0:
            body, self._body, self._missing = self._body, b"", 0
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        converse = CONVERSE.match(self._first)
        name = converse or MODEL.search(body)
        kind = name and KIND.fullmatch(name[1].decode())
        if self._first.startswith(b"POST / "):
            self._transport.write(answers.NO_STACK)
        elif kind is None or not (converse or STREAMED.search(body)):
            self._answer_plain(int(kind["delay"] or 0) if kind else 0)
        elif kind["held"]:
            self._transport.write(begun(kind[0], int(kind["held"])))
            self._held.add(self._transport, kind[0], int(kind["rate"]))
        else:
            self._task = self._loop.create_task(self._send(kind, is_converse=converse is not None))

    def _answer_plain(self, delay: int) -> None:
        if delay:
            self._loop.call_later(delay / 1000, self._transport.write, answers.PLAIN)
        else:
            self._transport.write(answers.PLAIN)

    async def _send(self, kind: re.Match[str], *, is_converse: bool) -> None:
        chunks = int(kind["paced"] or kind["burst"] or 50)
        pieces = answers.converse_stream(chunks) if is_converse else answers.stream(kind[0], chunks)
        if kind["paced"]:
            await self._pace(pieces, int(kind["gap"]) / 1000)
        else:
            await self._burst(pieces, int(kind["by"] or 0))

    async def _burst(self, pieces: tuple[bytes, ...], at_once: int) -> None:
        for block in blocks(pieces, at_once):
            if not self._flowing.is_set():
                await self._flowing.wait()
            self._transport.write(block)
            await asyncio.sleep(0)  # the other streams' turn: side by side, as a server's are

    async def _pace(self, pieces: tuple[bytes, ...], gap: float) -> None:
        start = self._loop.time()
        for number, piece in enumerate(pieces):
            # By the clock and not by the last chunk: what is late once does not stay late.
            await asyncio.sleep(start + number * gap - self._loop.time())
            await self._flowing.wait()
            self._transport.write(piece)


async def serve() -> None:
    loop, held = asyncio.get_running_loop(), Held()
    # The loop has to make the socket: on one from socket.create_server (its proto is 0) asyncio sets no TCP_NODELAY,
    # and a paced chunk then waits up to 40 ms for the reader's delayed ACK.
    server = await loop.create_server(lambda: Connection(held), "127.0.0.1", 0, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    print(f"listening on http://127.0.0.1:{port}", flush=True)
    await until_stdin_closes(LIFETIME)
    server.close()


async def until_stdin_closes(seconds: float = LIFETIME) -> None:
    """Whoever started this holds the other end: when that closes, or after a while anyway, it is over."""
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, over.set)
    try:
        await asyncio.wait_for(over.wait(), seconds)
    except TimeoutError:
        return


if __name__ == "__main__":
    gc.disable()  # nothing here makes cycles, and a pause would show up in the latencies
    asyncio.run(serve())
