"""The door of every address: who may come in, the id of a request, and the one shape of errors."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from functools import cached_property
from types import TracebackType
from typing import Any, ClassVar

import structlog
from tornado.iostream import StreamClosedError
from tornado.web import HTTPError, RequestHandler

from pipeline.errors import ForgelineError, Internal, InvalidRequest, NotFound
from server import wire
from server.errors import MethodNotAllowed, Unauthorized, error_body, headers_of, status_of
from server.negotiation import choose
from server.services import Services

log = structlog.get_logger(__name__)

SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Door(RequestHandler):
    """Refuses what may not come in, and turns every error into the one error body."""

    open_to_all: ClassVar[bool] = False  # whether any Host may ask, and no key is needed
    needs_key: ClassVar[bool] = True
    address: ClassVar[str] = "unknown"  # what metrics call it: the path, its variable parts by name

    def initialize(self) -> None:
        self.owner = ""
        self.summary: Mapping[str, Any] | None = None

    @property
    def services(self) -> Services:
        services: Services = self.application.settings["services"]
        return services

    @cached_property
    def request_id(self) -> str:
        """The client's own, if it is sane."""
        asked = self.request.headers.get("X-Request-Id", "")
        return asked if SANE_REQUEST_ID.fullmatch(asked) else secrets.token_hex(16)

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Request-Id", self.request_id)
        origin = self.request.headers.get("Origin")
        if origin is not None and self.services.access.is_listed(origin):
            self.set_header("Access-Control-Allow-Origin", origin)
            self.set_header("Access-Control-Expose-Headers", "X-Request-Id, X-Stream-Id, Retry-After")
            self.set_header("Vary", "Origin")

    def admit(self) -> None:
        """Raises Forbidden or Unauthorized."""
        if self.open_to_all:
            return
        access, headers = self.services.access, self.request.headers
        access.check_host(self.request.host)
        access.check_origin(headers.get("Origin"), self.request.host)
        if self.needs_key and self.request.method != "OPTIONS":
            self.owner = access.owner(headers, self.offered_key())

    def log_fields(self) -> dict[str, Any]:
        """What the access log says beside what it says of every request."""
        return {}

    def compute_etag(self) -> str | None:
        """None: what changes from one moment to the next is not to be cached, and hashing it costs."""

    def offered_key(self) -> str | None:
        """A key that is offered elsewhere than in the headers meant for keys."""
        return None

    def negotiate(self, *offered: str) -> str:
        """The type of the answer. Raises NotAcceptable."""
        return choose(", ".join(self.request.headers.get_list("Accept")), offered)

    def send(self, value: Any, kind: str = wire.JSON) -> None:
        self.set_header("Content-Type", kind)
        self.finish(wire.BODIES[kind](value))

    def write_error(
        self,
        status_code: int,
        *,
        exc_info: tuple[type[BaseException], BaseException, TracebackType | None] | None = None,
        **kwargs: Any,
    ) -> None:
        error = _to_told(exc_info[1] if exc_info else None, status_code)
        for name, value in headers_of(error).items():
            self.set_header(name, value)
        if isinstance(error, Unauthorized):
            self.set_header("WWW-Authenticate", "Bearer")
        if isinstance(error, MethodNotAllowed):
            self.set_header("Allow", ", ".join(self._allowed_methods()))
        self.set_status(status_of(error))
        self.services.metrics.error(error.code)
        try:
            kind = self.negotiate(wire.JSON, wire.MSGPACK)
        except ForgelineError:
            kind = wire.JSON
        self.send(self.error_content(error), kind)

    def error_content(self, error: ForgelineError) -> Any:
        """What the body of an error says."""
        return error_body(error, self.summary, self.request_id)

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
        """Only what is our own fault is worth a traceback."""
        if not isinstance(value, ForgelineError | HTTPError | StreamClosedError):
            log.error("handler failed", request_id=self.request_id, exc_info=value)


def _to_told(error: BaseException | None, status: int) -> ForgelineError:
    """What a client is told of an error that ended its request."""
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
