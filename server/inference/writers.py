"""Writers: the only place that writes events to a client."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Generic, Self, TypeVar, cast

from msgspec import Struct
from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPServerRequest
from tornado.iostream import IOStream, StreamClosedError
from tornado.web import RequestHandler
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from infraforge_runner.jobs.log_follower import LogPart
from pipeline.events.idle_timer import IdleTimer
from pipeline.messages import Failure
from pipeline.streams import StreamRecord
from server.inference.encoders import HEARTBEAT, Encoder, SocketFormat, Tag, TextEncoder, with_tag
from server.jobs.logs import LogSocketEncoder

T = TypeVar("T")


class ChunkedWriter(Generic[T]):
    """A chunked HTTP answer. A batch is one write, which waits for the client. `fast.py` has a faster one."""

    def __init__(self, handler: RequestHandler, encoder: Encoder[T]) -> None:
        self._handler = handler
        self._encoder = encoder
        self._stream = stream_of(handler.request)
        # Tornado sets it when an answer is finished; until then small writes would wait for the client's delayed ACK.
        self._stream.set_nodelay(True)
        self._is_chunked = handler.request.version == "HTTP/1.1"

    async def write(self, batch: Sequence[T], first: int) -> None:
        await self._send(self._encoder.encode(batch, first))
        if isinstance(self._encoder, TextEncoder) and any(isinstance(record, Failure) for record in batch):
            self.abort()  # bare text has no other sign of an error

    async def heartbeat(self) -> None:
        await self._send(self._encoder.heartbeat)

    async def _send(self, data: bytes) -> None:
        """Raises StreamClosedError."""
        self._handler.write(data)
        await self._handler.flush()

    def end(self) -> None:
        """End the answer. HTTP/1.0 has no other end of such an answer than that of its connection."""
        if not self._is_chunked:
            self._stream.close()

    def abort(self) -> None:
        """Close the connection without the last chunk, so that the client sees that the answer is incomplete."""
        self._stream.close()


class SocketWriter:
    """Writes to one WebSocket for all its operations, which take turns: one batch at a time is being written.

    `fast.py` has a faster one. A frame is a message as `send_frames` takes it: one may go to many sockets.
    """

    def __init__(self, handler: WebSocketHandler, format: SocketFormat, heartbeat: float) -> None:
        self.format = format
        self._handler = handler
        self._lock = asyncio.Lock()
        self._pending_write: asyncio.Future[Any] | None = None
        self._idle_timer = IdleTimer(heartbeat, self._send_heartbeat)

    def frame(self, payload: bytes) -> bytes:
        return payload

    async def send(self, payloads: Sequence[bytes]) -> None:
        """Send one message for each payload. Waits until the client has taken them. Raises StreamClosedError."""
        await self.send_frames(payloads)

    async def send_frames(self, frames: Sequence[bytes]) -> None:
        """Send what `frame` made, in the same way."""
        if self._is_writing or self._lock.locked():
            async with self._lock:
                await self._wait_until_written()
                await self._write(frames)
        else:  # without the lock: row "a socket whose turn nobody else wants" of docs/PERFORMANCE.md
            await self._write(frames)

    @property
    def _is_writing(self) -> bool:
        return self._pending_write is not None and not self._pending_write.done()

    async def _write(self, frames: Sequence[bytes]) -> None:
        self._pending_write = self._start_write(frames)
        await self._wait_until_written()
        self._idle_timer.reset()

    def _start_write(self, messages: Sequence[bytes]) -> asyncio.Future[Any]:
        """Raises StreamClosedError."""
        try:
            writes = [self._handler.write_message(message, self.format.binary) for message in messages]
        except WebSocketClosedError as error:
            raise StreamClosedError from error
        write = asyncio.gather(*writes)
        write.add_done_callback(_mark_exception_retrieved)
        return write

    async def _wait_until_written(self) -> None:
        """Wait for the pending write, which may be that of an operation that was cancelled meanwhile."""
        if self._pending_write is not None:
            try:
                # One that is done may have an error to raise.
                await (asyncio.shield(self._pending_write) if self._is_writing else self._pending_write)
            except WebSocketClosedError as error:
                raise StreamClosedError from error

    async def send_message(self, message: Mapping[str, Any] | Struct, tag: Tag | None) -> None:
        await self.send([self.format.pack(with_tag(message, tag))])

    def _send_heartbeat(self) -> None:
        if not self._is_writing:
            with suppress(StreamClosedError):
                self._pending_write = self._start_write([self.format.pack(HEARTBEAT)])

    def __enter__(self) -> Self:
        self._idle_timer.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._idle_timer.__exit__(*exc_info)


def _mark_exception_retrieved(write: asyncio.Future[Any]) -> None:
    """A write whose operation was cancelled may fail without a reader; asyncio would log that."""
    if not write.cancelled():
        write.exception()


class StreamSocketWriter:
    """One stream's events on a WebSocket. The socket's writer sends the heartbeats."""

    def __init__(self, writer: SocketWriter, tag: Tag | None, model: str) -> None:
        self._writer = writer
        self._encode = writer.format.events(tag, model)

    async def write(self, batch: Sequence[StreamRecord], first: int) -> None:
        await self._writer.send(self._encode(batch, first))

    async def heartbeat(self) -> None:
        pass


class LogSocketWriter:
    """A job's log on a WebSocket. Without a client's id, a part is framed once for all sockets that follow it."""

    def __init__(self, writer: SocketWriter, tag: Tag | None, job_id: str) -> None:
        self._writer = writer
        self._encode = LogSocketEncoder(writer.format.content_type, tag, job_id)
        self._is_shared = tag is None

    async def write(self, batch: Sequence[LogPart], first: int) -> None:
        await self._writer.send_frames([self._frame(part) for part in batch])

    def _frame(self, part: LogPart) -> bytes:
        if self._is_shared:
            return part.encoded_as(("frame", self._writer.format.content_type), self._encode_frame)
        return self._encode_frame(part)

    def _encode_frame(self, part: LogPart) -> bytes:
        return self._writer.frame(self._encode(part))

    async def heartbeat(self) -> None:
        pass


def stream_of(request: HTTPServerRequest) -> IOStream:
    """A request's connection, which alone can be aborted: Tornado's public interface has only clean ends."""
    return cast(HTTP1Connection, request.connection).stream
