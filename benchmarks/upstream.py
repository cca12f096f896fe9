"""A mock OpenAI-compatible upstream, made of prebuilt bytes so that it is never the limit.

The model's name says what is answered: `plain` one JSON body, `burst-N` N chunks as fast as they are taken, in writes
of 64 kB, `burst-N-by-K` the same with K chunks per write, `paced-N-Xms` N chunks, the first at once and then one
every X ms.
"""

import asyncio
import functools
import gc
import json
import re
import sys
from typing import Any

from benchmarks.http1 import CHUNKED, END_OF_HEAD, LENGTH

ANSWER = "The answer of the mock upstream"
WORDS = (" the", " of", " cluster", " node", " token", " GPU", " and", " ready", ", then", " über", " model", ".\n")
BLOCK = 64 * 1024
KEPT = 8 * 1024  # of a body's beginning and of its end: `model` and `stream` stand in one of them
LIFETIME = 900  # seconds; a forgotten mock ends by itself

MODEL = re.compile(rb'"model"\s*:\s*"([^"]*)"')
STREAMED = re.compile(rb'"stream"\s*:\s*true')
KIND = re.compile(r"(?:burst|paced)-(\d+)(?:-by-(\d+))?(?:-(\d+)ms)?")

# One for all connections: asyncio reads into it and hands it over before it reads again.
BUFFER = memoryview(bytearray(1024 * 1024))


def plain_answer() -> bytes:
    body = json.dumps(
        {
            "id": "chatcmpl-bench0123456789abcdef",
            "object": "chat.completion",
            "created": 1760000000,
            "model": "plain",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": ANSWER + "".join(WORDS) * 5},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 200, "completion_tokens": 64, "total_tokens": 264},
            "system_fingerprint": "fp_bench",
        }
    ).encode()
    return head(f"Content-Type: application/json\r\nContent-Length: {len(body)}") + body


def head(headers: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nServer: mock\r\n{headers}\r\n\r\n".encode()


def framed(model: str, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> bytes:
    """One chunk object as an SSE event, in an HTTP chunk of its own, as real servers send it."""
    chunk = {
        "id": "chatcmpl-bench0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1760000000,
        "model": model,
        "choices": choices,
        "usage": usage,
    }
    return http_chunk(b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n")


def http_chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@functools.cache
def stream(model: str, chunks: int) -> tuple[bytes, ...]:
    """The answer in pieces, one per token: the first with the head before it, the last with the end behind it."""
    pieces = []
    for number in range(chunks):
        delta = {"content": WORDS[number % len(WORDS)]}
        if number == 0:
            delta = {"role": "assistant", **delta}
        pieces.append(framed(model, [{"index": 0, "delta": delta, "finish_reason": None}]))
    pieces[0] = head("Content-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked") + pieces[0]
    usage = {"prompt_tokens": 200, "completion_tokens": chunks, "total_tokens": 200 + chunks}
    pieces[-1] += framed(model, [{"index": 0, "delta": {}, "finish_reason": "stop"}])
    pieces[-1] += framed(model, [], usage) + http_chunk(b"data: [DONE]\n\n") + http_chunk(b"")
    return tuple(pieces)


@functools.cache
def blocks(model: str, chunks: int, at_once: int) -> tuple[bytes | memoryview, ...]:
    if at_once:
        pieces = stream(model, chunks)
        return tuple(b"".join(pieces[at : at + at_once]) for at in range(0, chunks, at_once))
    whole = memoryview(b"".join(stream(model, chunks)))
    return tuple(whole[at : at + BLOCK] for at in range(0, len(whole), BLOCK))


PLAIN = plain_answer()
MODELS = b'{"object":"list","data":[]}'
LISTED = head(f"Content-Type: application/json\r\nContent-Length: {len(MODELS)}") + MODELS
NO_LENGTH = head("Content-Length: 0\r\nConnection: close", "411 Length Required")


class Connection(asyncio.BufferedProtocol):
    """One kept-alive connection: reads a request, looks at no more of its body than it must, answers."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._head = b""
        self._body = b""
        self._missing = 0
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
        if first.startswith(b"GET "):
            self._transport.write(LISTED)
        elif length is None or CHUNKED.search(first):
            self._transport.write(NO_LENGTH)
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
        if not STREAMED.search(body):
            self._transport.write(PLAIN)
            return
        name = MODEL.search(body)
        model = name[1].decode() if name else "burst-50"
        kind = KIND.fullmatch(model)
        count, at_once, gap = map(int, kind.groups("0")) if kind else (50, 0, 0)
        sending = self._pace(model, count, gap / 1000) if gap else self._burst(model, count, at_once)
        self._task = self._loop.create_task(sending, name=f"answer {model}")

    async def _burst(self, model: str, chunks: int, at_once: int) -> None:
        for block in blocks(model, chunks, at_once):
            if not self._flowing.is_set():
                await self._flowing.wait()
            self._transport.write(block)
            await asyncio.sleep(0)  # the other streams' turn: side by side, as a server's are

    async def _pace(self, model: str, chunks: int, gap: float) -> None:
        start = self._loop.time()
        for number, piece in enumerate(stream(model, chunks)):
            # By the clock and not by the last chunk: what is late once does not stay late.
            await asyncio.sleep(start + number * gap - self._loop.time())
            await self._flowing.wait()
            self._transport.write(piece)


async def serve() -> None:
    loop = asyncio.get_running_loop()
    # The loop has to make the socket: on one from socket.create_server (its proto is 0) asyncio sets no TCP_NODELAY,
    # and a paced chunk then waits up to 40 ms for the reader's delayed ACK.
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    print(f"listening on http://127.0.0.1:{port}", flush=True)
    await until_stdin_closes(LIFETIME)
    server.close()


async def until_stdin_closes(seconds: float) -> None:
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
