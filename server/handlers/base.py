"""What every handler does: authorization, the request's id, error bodies; and bodies of requests, with their limits."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from asyncio import Future
from functools import cached_property
from types import TracebackType
from typing import Any, ClassVar

import structlog
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler, stream_request_body

from infraforge_runner.jobs.log_follower import LogPart
from pipeline.envelope import RequestSummary
from pipeline.errors import ForgelineError, Internal, InvalidRequest, NotFound
from pipeline.events.cursor import Cursor
from pipeline.streams import StreamRecord
from server import fast
from server.errors import (
    ClientDisconnected,
    Forbidden,
    MethodNotAllowed,
    RequestTimeout,
    TooLarge,
    Unauthorized,
    UnsupportedMediaType,
    error_body,
    headers_of,
    status_of,
)
from server.inference import encoders
from server.inference.negotiation import media_type, negotiate
from server.inference.parsing import RequestContext, decode_body
from server.inference.writers import stream_of
from server.services import Services

log = structlog.get_logger(__name__)

REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._:-]{1,128}")
MAX_DISCARDED = 1_000_000_000  # bytes of a rejected body that are read, so that its client sees the error
BODY_RATE_SECONDS, BODY_RATE_BYTES = 10.0, 16_384  # a body has to bring so many bytes in each span of so many seconds


class BaseHandler(RequestHandler):
    """Authorizes a request, gives it an id, and turns every error into the one error body."""

    public: ClassVar[bool] = False  # any Host may ask, and no key is needed
    needs_key: ClassVar[bool] = True

    def initialize(self, route_path: str) -> None:
        """`route_path` is the path with the names of its parameters: a label of metrics and spans."""
        self.route_path = route_path
        self.owner = ""
        self.request_summary: RequestSummary | None = None

    @property
    def services(self) -> Services:
        services: Services = self.application.settings["services"]
        return services

    @cached_property
    def request_id(self) -> str:
        """The client's own id, if it is well-formed; a random one otherwise."""
        client_id = self.request.headers.get("X-Request-Id", "")
        return client_id if REQUEST_ID_PATTERN.fullmatch(client_id) else secrets.token_hex(16)

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Request-Id", self.request_id)
        origin = self.request.headers.get("Origin")
        if origin is not None and self.services.hosts.is_allowed_origin(origin):
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_header("Access-Control-Expose-Headers", "X-Request-Id, X-Stream-Id, Retry-After")
            self.set_header("Vary", "Origin")

    def authorize(self) -> None:
        """Check Host, Origin and API key. Raises Forbidden, Unauthorized."""
        if self.public:
            return
        services, headers = self.services, self.request.headers
        services.hosts.check_host(self.request.host)
        services.hosts.check_origin(headers.get("Origin"), self.request.host)
        if self.needs_key and self.request.method != "OPTIONS":
            self.owner = services.api_keys.authenticate(headers, self.key_outside_headers())

    def log_fields(self) -> dict[str, Any]:
        """Further fields of this request's line in the access log."""
        return {}

    def compute_etag(self) -> str | None:
        """None: bodies change from one moment to the next, and hashing them takes time."""

    def key_outside_headers(self) -> str | None:
        """An API key that came neither in Authorization nor in X-API-Key."""
        return None

    def negotiate(self, *offered: str) -> str:
        """The type of the answer. Raises NotAcceptable."""
        return negotiate(", ".join(self.request.headers.get_list("Accept")), offered)

    def send_body(self, value: Any, content_type: str = encoders.JSON) -> None:
        self.set_header("Content-Type", content_type)
        self.finish(encoders.BODY_ENCODERS[content_type](value))

    def write_error(
        self,
        status_code: int,
        *,
        exc_info: tuple[type[BaseException], BaseException, TracebackType | None] | None = None,
        **kwargs: Any,
    ) -> None:
        error = _as_forgeline_error(exc_info[1] if exc_info else None, status_code)
        for name, value in headers_of(error).items():
            self.set_header(name, value)
        if isinstance(error, Unauthorized):
            self.set_header("WWW-Authenticate", "Bearer")
        if isinstance(error, MethodNotAllowed):
            self.set_header("Allow", ", ".join(self._allowed_methods()))
        self.set_status(status_of(error))
        self.services.metrics.count_error(error.code)
        try:
            content_type = self.negotiate(encoders.JSON, encoders.MSGPACK)
        except ForgelineError:
            content_type = encoders.JSON
        self.send_body(self.error_content(error), content_type)

    def error_content(self, error: ForgelineError) -> Any:
        """The body of an answer that is an error."""
        return error_body(error, self.request_summary, self.request_id)

    def _allowed_methods(self) -> list[str]:
        names = [str(name) for name in self.SUPPORTED_METHODS]
        return [
            name for name in names if getattr(type(self), name.lower()) is not getattr(RequestHandler, name.lower())
        ]

    def log_exception(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Log a traceback of what is a bug of ours, and nothing of other errors."""
        if not isinstance(value, ForgelineError | HTTPError | StreamClosedError):
            log.error("handler_failed", request_id=self.request_id, exc_info=value)


def _as_forgeline_error(error: BaseException | None, status: int) -> ForgelineError:
    """The error that the client gets for one that ended its request."""
    if isinstance(error, ForgelineError):
        return error
    match status:
        case 404:
            return NotFound("There is nothing at this address.")
        case 405:
            return MethodNotAllowed("This address does not take this method.")
        case _ if 400 <= status < 500:
            return InvalidRequest("The request is not understood.")
        case _:
            return Internal()


@stream_request_body
class ApiHandler(BaseHandler):
    """A handler of requests with one answer: reads their body, and notices when their client disconnects."""

    def initialize(self, route_path: str) -> None:
        super().initialize(route_path)
        self.cursor: Cursor[StreamRecord] | Cursor[LogPart] | None = None
        self._body = bytearray()
        self._received_bytes = 0
        self._last_byte_at = time.monotonic()
        self._rejected_with: ForgelineError | None = None
        self._body_timer: asyncio.TimerHandle | None = None

    # --- before the body -------------------------------------------------------------------------

    def prepare(self) -> None:
        self.services.in_flight.add(self)
        try:
            self.authorize()
            self._check_content_length()
        except ForgelineError as error:
            self._reject(error)
        if self._has_body():
            self._check_body_rate()
        fast.set_read_size(stream_of(self.request), self.request.headers)

    def options(self, **arguments: str) -> None:
        """Answer a CORS preflight request."""
        origin = self.request.headers.get("Origin")
        if origin is None or not self.services.hosts.is_allowed_origin(origin):
            raise Forbidden("No other site may call this server; --allow-origin lists those that may.")
        self.set_header("Access-Control-Allow-Methods", "GET, POST, DELETE")
        self.set_header(
            "Access-Control-Allow-Headers",
            "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-API-Key, X-Request-Id",
        )
        self.set_status(204)

    def _reject(self, error: ForgelineError) -> None:
        """Answer with `error` once the request is read: before that, Tornado would close the connection."""
        if "Expect" in self.request.headers:
            raise error  # this client sends its body only after our answer
        self._rejected_with = error

        def raise_error(**arguments: str) -> None:
            raise error

        setattr(self, str(self.request.method).lower(), raise_error)

    # --- the body --------------------------------------------------------------------------------

    def _has_body(self) -> bool:
        headers = self.request.headers
        return "Transfer-Encoding" in headers or headers.get("Content-Length", "0") != "0"

    def _check_content_length(self) -> None:
        length = self.request.headers.get("Content-Length", "0")
        if length.isascii() and length.isdigit() and int(length) > self.services.options.max_body:
            raise self._too_large()

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The body is larger than the {self.services.options.max_body:,} bytes that are taken.")

    def data_received(self, chunk: bytes) -> None:
        self._received_bytes += len(chunk)
        self._last_byte_at = time.monotonic()
        if self._received_bytes > MAX_DISCARDED:
            stream_of(self.request).close()
        elif self._rejected_with is None and self._received_bytes > self.services.options.max_body:
            self._reject(self._too_large())
        if self._rejected_with is None:
            self._body += chunk
        else:
            self._body.clear()

    def _check_body_rate(self, received_before: int | None = None) -> None:
        """End a request whose body comes too slowly. `received_before`: its bytes at the last check."""
        if str(self._received_bytes) == self.request.headers.get("Content-Length"):
            return
        if received_before is not None and self._received_bytes - received_before < BODY_RATE_BYTES:
            error = RequestTimeout(
                f"The body came too slowly: under {BODY_RATE_BYTES:,} bytes in {BODY_RATE_SECONDS:g} s."
            )
            self.send_error(status_of(error), exc_info=(type(error), error, None))
            return
        loop = asyncio.get_running_loop()
        self._body_timer = loop.call_later(BODY_RATE_SECONDS, self._check_body_rate, self._received_bytes)

    def _stop_body_timer(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    def read_body(self) -> Any:
        """The decoded value of the body. Raises UnsupportedMediaType, InvalidRequest."""
        self._stop_body_timer()
        if self.request.headers.get("Content-Encoding", "identity") != "identity":
            raise UnsupportedMediaType("Content-Encoding: a body has to come uncompressed.")
        body, self._body = self._body, bytearray()  # bodies are large: the bytes are freed once they are decoded
        return decode_body(media_type(self.request.headers.get("Content-Type", "")), body)

    @property
    def request_context(self) -> RequestContext:
        return RequestContext(self.request_id, self.owner, self._last_byte_at)

    # --- the end ---------------------------------------------------------------------------------

    def on_connection_close(self) -> None:
        super().on_connection_close()  # ends the wait for the rest of a body
        self._stop_body_timer()
        self.services.in_flight.discard(self)
        if self.cursor is not None:
            self.cursor.abort(ClientDisconnected("The client left."))

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        if self._headers_written:  # an unfinished answer is the only sign of an error that is left
            stream_of(self.request).close()
            self.finish()
        else:
            super().send_error(status_code, **kwargs)

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> Future[None]:
        self._stop_body_timer()
        written: Future[None] = super().finish(chunk)
        written.add_done_callback(lambda _: self.services.in_flight.discard(self))
        return written


class NotFoundHandler(ApiHandler):
    """Answers every path that is not in the route table."""

    def authorize(self) -> None:
        super().authorize()
        raise NotFound("There is nothing at this address.")
