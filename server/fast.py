"""Every bypass of Tornado's public interface, of the allocator and of the garbage collector.

With FORGELINE_FAST=0 in the environment none of it is used: events go by Tornado's public interface only, slower and
with the same bytes. `pipeline/fast.py` has the bypasses of aiohttp and obeys the same switch. Each function here names
the rows of docs/PERFORMANCE.md, "What was found to cost time", that it buys.
"""

from __future__ import annotations

import ctypes
import gc
import struct
from collections.abc import Sequence
from typing import Final, TypeVar, cast

from tornado.httputil import HTTPHeaders
from tornado.iostream import IOStream
from tornado.web import RequestHandler
from tornado.websocket import WebSocketHandler, WebSocketProtocol13

from pipeline.fast import is_enabled
from server.inference.encoders import HEARTBEAT, Encoder, SocketFormat
from server.inference.writers import ChunkedWriter, SocketWriter

T = TypeVar("T")

ENABLED: Final = is_enabled()

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
MAX_KEPT_BYTES = 64_000_000  # freed bytes at the heap's end that stay with the process
MAX_KEPT_BLOCK_BYTES = 4_000_000  # larger blocks, such as a request's pictures, mostly go back at once

READ_SIZE = 65_536  # bytes that one read of a connection asks for: Tornado's default
LARGE_READ_SIZE = 1_048_576 if ENABLED else READ_SIZE

MAX_CACHED_SIZE = 4096  # bytes: larger messages are rare


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next allocation. Other C libraries have no such setting.

    Buys the row "glibc keeps what was freed".
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if ENABLED and mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, MAX_KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, MAX_KEPT_BLOCK_BYTES)


def relax_collector() -> None:
    """Exempt all present objects from garbage collection, and collect rarely: requests make no reference cycles.

    Buys the row "the collector looks after 50,000 new objects". A full collection still runs after a million objects.
    """
    if ENABLED:
        gc.freeze()
        gc.set_threshold(50_000, 5, 5)


def set_read_size(stream: IOStream, headers: HTTPHeaders) -> None:
    """Read a body of 100,000 bytes and more, or of unknown length, in large pieces, and all others in small ones.

    Buys the row "a small request is read into a buffer of 64 kB", and the requests per second of "4 MB image body".
    """
    if ENABLED:
        has_large_body = "Transfer-Encoding" in headers or len(headers.get("Content-Length", "")) >= len("100000")
        stream.read_chunk_size = LARGE_READ_SIZE if has_large_body else READ_SIZE


def write_now(stream: IOStream, data: bytes) -> bytes:
    """Write what the socket takes now, and return the rest for `stream.write`, which waits, and raises its errors.

    Buys the row "a socket is asked to take events at once".
    """
    if stream.writing() or stream.closed():
        return data
    try:
        return data[stream.write_to_fd(memoryview(data)) :]
    except OSError:
        return data


class FastChunkedWriter(ChunkedWriter[T]):
    """Frames chunks itself, and writes all but the first, which takes the headers along, past Tornado's `flush`.

    Buys the row "a chunked answer is written straight to the socket".
    """

    _headers_sent = False

    async def _send(self, data: bytes) -> None:
        if self._headers_sent:
            if data:
                rest = write_now(self._stream, b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)
                if rest:
                    await self._stream.write(rest)
        else:
            await super()._send(data)
            self._headers_sent = True


class FrameHeads(dict[int, bytes]):
    """The bytes before a payload in its WebSocket frame (RFC 6455, 5.2: final, unmasked), by the payload's size.

    Buys the row "the head of a WebSocket frame is looked up by the payload's size".
    """

    def __init__(self, opcode: int) -> None:
        super().__init__()
        self._first_byte = 0x80 | opcode

    def __missing__(self, size: int) -> bytes:
        if size < 126:
            head = bytes((self._first_byte, size))
        elif size < 65_536:
            head = struct.pack("!BBH", self._first_byte, 126, size)
        else:
            head = struct.pack("!BBQ", self._first_byte, 127, size)
        if size < MAX_CACHED_SIZE:
            self[size] = head
        return head


TEXT_HEADS, BINARY_HEADS = FrameHeads(1), FrameHeads(2)


class FastSocketWriter(SocketWriter):
    """Frames messages itself, and writes a batch of them at once, past Tornado's `write_message`.

    Buys the row "a socket is asked to take events at once".
    """

    def __init__(self, handler: WebSocketHandler, format: SocketFormat, heartbeat: float) -> None:
        super().__init__(handler, format, heartbeat)
        self._stream = cast(WebSocketProtocol13, handler.ws_connection).stream
        self._heads = BINARY_HEADS if format.binary else TEXT_HEADS

    def frame(self, payload: bytes) -> bytes:
        return self._heads[len(payload)] + payload

    async def send(self, payloads: Sequence[bytes]) -> None:
        heads = self._heads
        await self.send_frames([heads[len(payload)] + payload for payload in payloads])

    async def _write(self, frames: Sequence[bytes]) -> None:
        rest = write_now(self._stream, b"".join(frames))
        if rest:
            self._pending_write = self._stream.write(rest)
            await self._wait_until_written()
        self._idle_timer.reset()

    def _send_heartbeat(self) -> None:
        if not self._stream.writing() and not self._stream.closed():
            self._stream.write(self.frame(self.format.pack(HEARTBEAT)))


def chunked_writer(handler: RequestHandler, encoder: Encoder[T]) -> ChunkedWriter[T]:
    return FastChunkedWriter(handler, encoder) if ENABLED else ChunkedWriter(handler, encoder)


def socket_writer(handler: WebSocketHandler, format: SocketFormat, heartbeat: float) -> SocketWriter:
    return (FastSocketWriter if ENABLED else SocketWriter)(handler, format, heartbeat)
