"""The mock upstream, for OpenAI's and Bedrock's APIs, with canned bytes so that it is never the limit.

The model's name selects the response:

- `plain`: one JSON body; `plain-Xms`: the same after X ms;
- `burst-N`: N chunks as fast as the client reads them, in writes of 64 kB; `burst-N-by-K`: K chunks in each write;
- `paced-N-Xms`: N chunks, the first immediately, then one every X ms;
- `held-N-at-R`: N chunks immediately, then R chunks a second over all such streams together, each with a timestamp; the
  streams never end.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import re
import sys
import time
from collections import deque

from benchmarks import canned_responses
from benchmarks.clients.http1 import CHUNKED, END_OF_HEAD, LENGTH

SEARCHED_BYTES = 8 * 1024  # of a body's start and of its end: `model` and `stream` are in one of them
LIFETIME = 1800  # seconds, after which an orphaned mock exits

MODEL = re.compile(rb'"model"\s*:\s*"([^"]*)"')
STREAM_FLAG = re.compile(rb'"stream"\s*:\s*true')
CONVERSE = re.compile(rb"POST /model/([^/ ]+)/converse-stream ")
MODEL_NAME = re.compile(
    r"plain(?:-(?P<delay>\d+)ms)?|burst-(?P<burst>\d+)(?:-by-(?P<by>\d+))?"
    r"|paced-(?P<paced>\d+)-(?P<gap>\d+)ms|held-(?P<held>\d+)-at-(?P<rate>\d+)"
)

# Shared by all connections: asyncio passes the data on before it reads again.
READ_BUFFER = memoryview(bytearray(1024 * 1024))

split_writes = functools.cache(canned_responses.split_writes)
unfinished_stream = functools.cache(lambda model, chunks: b"".join(canned_responses.unfinished_stream(model, chunks)))


class OpenStreamGroup:
    """The streams of `held-…` models: they get chunks in turn."""

    def __init__(self) -> None:
        self._streams: deque[tuple[asyncio.Transport, str]] = deque()
        self._send_task: asyncio.Task[None] | None = None

    def add(self, transport: asyncio.Transport, model: str, rate: int) -> None:
        self._streams.append((transport, model))
        if self._send_task is None or self._send_task.done():
            self._send_task = asyncio.get_running_loop().create_task(self._send(1 / rate), name="held streams")

    async def _send(self, interval: float) -> None:
        loop = asyncio.get_running_loop()
        next_send = loop.time()
        while still_open := deque(stream for stream in self._streams if not stream[0].is_closing()):
            self._streams = still_open
            transport, model = self._streams[0]
            transport.write(canned_responses.token_chunk(model, f"@{time.time():.6f}@"))
            self._streams.rotate(-1)
            next_send += interval
            await asyncio.sleep(next_send - loop.time())
        self._streams.clear()


class Connection(asyncio.BufferedProtocol):
    """A keep-alive connection: reads requests, parses as little of a body as possible, responds."""

    def __init__(self, open_streams: OpenStreamGroup) -> None:
        self._loop = asyncio.get_running_loop()
        self._open_streams = open_streams
        self._head = b""
        self._body = b""
        self._missing = 0
        self._head_lines = b""  # the request line and headers of the current request
        self._writable = asyncio.Event()
        self._writable.set()
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def get_buffer(self, sizehint: int) -> memoryview:
        return READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        if len(self._body) >= SEARCHED_BYTES and self._missing > nbytes + SEARCHED_BYTES:
            self._missing -= nbytes  # the middle of a large body is only counted
            return
        data = bytes(READ_BUFFER[:nbytes])
        if self._missing:
            self._on_body(data)
        else:
            self._on_head(self._head + data)

    def _on_head(self, data: bytes) -> None:
        end = data.find(END_OF_HEAD)
        if end < 0:
            self._head = data
            return
        self._head = b""
        head_lines, rest = data[: end + 2], data[end + len(END_OF_HEAD) :]
        length = LENGTH.search(head_lines)
        self._head_lines = head_lines
        if head_lines.startswith(b"GET "):
            self._transport.write(canned_responses.EMPTY_LIST)
        elif length is None or CHUNKED.search(head_lines):
            self._transport.write(canned_responses.LENGTH_REQUIRED)
            self._transport.close()
        else:
            self._missing = int(length[1])
            self._on_body(rest)

    def _on_body(self, data: bytes) -> None:
        self._body += data
        self._missing -= len(data)
        if self._missing <= 0:
            body, self._body, self._missing = self._body, b"", 0
            self._respond(body)

    def _respond(self, body: bytes) -> None:
        converse = CONVERSE.match(self._head_lines)
        model = converse or MODEL.search(body)
        behaviour = model and MODEL_NAME.fullmatch(model[1].decode())
        if self._head_lines.startswith(b"POST / "):
            self._transport.write(canned_responses.STACK_NOT_FOUND)
        elif behaviour is None or not (converse or STREAM_FLAG.search(body)):
            self._respond_plain(int(behaviour["delay"] or 0) if behaviour else 0)
        elif behaviour["held"]:
            self._transport.write(unfinished_stream(behaviour[0], int(behaviour["held"])))
            self._open_streams.add(self._transport, behaviour[0], int(behaviour["rate"]))
        else:
            self._task = self._loop.create_task(self._send(behaviour, is_converse=converse is not None))

    def _respond_plain(self, delay_ms: int) -> None:
        if delay_ms:
            self._loop.call_later(delay_ms / 1000, self._transport.write, canned_responses.PLAIN_RESPONSE)
        else:
            self._transport.write(canned_responses.PLAIN_RESPONSE)

    async def _send(self, behaviour: re.Match[str], *, is_converse: bool) -> None:
        chunks = int(behaviour["paced"] or behaviour["burst"] or 50)
        if is_converse:
            pieces = canned_responses.converse_stream(chunks)
        else:
            pieces = canned_responses.sse_stream(behaviour[0], chunks)
        if behaviour["paced"]:
            await self._send_paced(pieces, int(behaviour["gap"]) / 1000)
        else:
            await self._send_burst(pieces, int(behaviour["by"] or 0))

    async def _send_burst(self, pieces: tuple[bytes, ...], pieces_per_write: int) -> None:
        for block in split_writes(pieces, pieces_per_write):
            if not self._writable.is_set():
                await self._writable.wait()
            self._transport.write(block)
            await asyncio.sleep(0)  # let other streams write, as a real server does

    async def _send_paced(self, pieces: tuple[bytes, ...], interval: float) -> None:
        start = self._loop.time()
        for number, piece in enumerate(pieces):
            # By the clock, not relative to the last chunk: one late chunk does not delay the rest.
            await asyncio.sleep(start + number * interval - self._loop.time())
            await self._writable.wait()
            self._transport.write(piece)


async def serve() -> None:
    loop, open_streams = asyncio.get_running_loop(), OpenStreamGroup()
    # The event loop must create the socket: on one from socket.create_server (its proto is 0) asyncio does not set
    # TCP_NODELAY, and a paced chunk then waits up to 40 ms for the reader's delayed ACK.
    server = await loop.create_server(lambda: Connection(open_streams), "127.0.0.1", 0, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    print(f"listening on http://127.0.0.1:{port}", flush=True)
    await wait_until_stdin_closes(LIFETIME)
    server.close()


async def wait_until_stdin_closes(seconds: float = LIFETIME) -> None:
    """Wait until the parent process closes the pipe, or at most so long."""
    closed = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, closed.set)
    try:
        await asyncio.wait_for(closed.wait(), seconds)
    except TimeoutError:
        return


if __name__ == "__main__":
    gc.disable()  # there are no reference cycles here, and a collection would distort latencies
    asyncio.run(serve())
