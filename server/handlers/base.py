"""What every handler of requests does: the body with its limits, and clients that leave."""

from __future__ import annotations

import asyncio
import time
from asyncio import Future
from typing import Any

from tornado.web import stream_request_body

from infraforge_runner.tail import LogCursor
from pipeline.errors import ForgelineError, NotFound
from pipeline.eventlog import Cursor
from pipeline.streams import Record
from server.errors import (
    ClientLeft,
    Forbidden,
    RequestTimeout,
    TooLarge,
    UnsupportedMediaType,
    status_of,
)
from server.handlers.door import Door
from server.negotiation import media_type
from server.requests import Arrival, decode_body
from server.sinks import socket_of

MAX_THROWN_AWAY = 1_000_000_000  # bytes of a body that is not wanted that are read, so that its client sees why
# Bytes that are read at once. Tornado clears a buffer of that size for each read: 1 MB, which is what large bodies want
# (with 64 kB a picture of 4 MB takes a third longer), costs every other read 12 µs and the core's cache.
READ, LARGE_READ = 65_536, 1_048_576
BODY_SECONDS, BODY_BYTES = 10.0, 16_384  # each span of so many seconds has to bring so many bytes of a body


@stream_request_body
class ApiHandler(Door):
    """A door for requests with one answer: takes their body, and notices when their client leaves."""

    def initialize(self) -> None:
        super().initialize()
        self.cursor: Cursor[Record] | LogCursor | None = None
        self._body = bytearray()
        self._received = 0
        self._last_byte = time.monotonic()
        self._refused: ForgelineError | None = None
        self._body_timer: asyncio.TimerHandle | None = None

    # --- coming in -------------------------------------------------------------------------------

    def prepare(self) -> None:
        self.services.answering.enter(self)
        try:
            self.admit()
            self._check_length()
        except ForgelineError as error:
            self._refuse(error)
        if self._has_body():
            self._watch_body()
        socket_of(self.request).read_chunk_size = LARGE_READ if self._has_large_body() else READ

    def options(self, *args: str) -> None:
        """A browser's question before it calls from another site."""
        origin = self.request.headers.get("Origin")
        if origin is None or not self.services.access.is_listed(origin):
            raise Forbidden("No other site may call this server; --allow-origin lists those that may.")
        self.set_header("Access-Control-Allow-Methods", "GET, POST, DELETE")
        self.set_header(
            "Access-Control-Allow-Headers",
            "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-API-Key, X-Request-Id",
        )
        self.set_status(204)

    def _refuse(self, error: ForgelineError) -> None:
        """Answers with `error` once the request is read: Tornado closes on a client whose request isn't."""
        if "Expect" in self.request.headers:
            raise error  # this client waits for our word before it sends the body
        self._refused = error

        def refuse(*args: str) -> None:
            raise error

        setattr(self, str(self.request.method).lower(), refuse)

    # --- the body --------------------------------------------------------------------------------

    def _has_body(self) -> bool:
        headers = self.request.headers
        return "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0"

    def _has_large_body(self) -> bool:
        """Of 100,000 bytes and more, or of a length that only its end tells."""
        headers = self.request.headers
        return "Transfer-Encoding" in headers or len(headers.get("Content-Length", "")) >= len("100000")

    def _check_length(self) -> None:
        length = self.request.headers.get("Content-Length", "0")
        if length.isascii() and length.isdigit() and int(length) > self.services.options.max_body:
            raise self._too_large()

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body is larger than the {self.services.options.max_body:,} bytes that are taken.")

    def data_received(self, chunk: bytes) -> None:
        self._received += len(chunk)
        self._last_byte = time.monotonic()
        if self._received > MAX_THROWN_AWAY:
            socket_of(self.request).close()
        elif self._refused is None and self._received > self.services.options.max_body:
            self._refuse(self._too_large())
        if self._refused is None:
            self._body += chunk
        else:
            self._body.clear()

    def _watch_body(self, before: int | None = None) -> None:
        """Ends a request whose body trickles. `before`: the bytes that had come at the last look."""
        if str(self._received) == self.request.headers.get("Content-Length"):
            return
        if before is not None and self._received - before < BODY_BYTES:
            error = RequestTimeout(f"The body came too slowly: under {BODY_BYTES:,} bytes in {BODY_SECONDS:g} s.")
            self.send_error(status_of(error), exc_info=(type(error), error, None))
            return
        self._body_timer = asyncio.get_running_loop().call_later(BODY_SECONDS, self._watch_body, self._received)

    def _body_is_here(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    def body(self) -> Any:
        """The value that the body holds. Raises UnsupportedMediaType, InvalidRequest."""
        self._body_is_here()
        if self.request.headers.get("Content-Encoding", "identity") != "identity":
            raise UnsupportedMediaType("Content-Encoding: a body has to come uncompressed.")
        body, self._body = self._body, bytearray()  # not kept beside what it holds: bodies are large
        return decode_body(media_type(self.request.headers.get("Content-Type", "")), body)

    @property
    def arrival(self) -> Arrival:
        return Arrival(self.request_id, self.owner, self._last_byte)

    # --- leaving ---------------------------------------------------------------------------------

    def on_connection_close(self) -> None:
        super().on_connection_close()  # ends the wait for the rest of a body
        self._body_is_here()
        self.services.answering.leave(self)
        if self.cursor is not None:
            self.cursor.cut(ClientLeft("The client left."))

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        if self._headers_written:  # nothing can be told any more: the client sees that the answer is cut
            socket_of(self.request).close()
            self.finish()
        else:
            super().send_error(status_code, **kwargs)

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> Future[None]:
        self._body_is_here()
        written: Future[None] = super().finish(chunk)
        written.add_done_callback(lambda _: self.services.answering.leave(self))
        return written


class NotFoundHandler(ApiHandler):
    """Every address that is not in the route table."""

    def admit(self) -> None:
        super().admit()
        raise NotFound("There is nothing at this address.")
