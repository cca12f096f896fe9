"""Spans of HTTP requests: one for each, from its headers to the last byte of its answer.

Wrapped around the application where requests are traced; where they are not, nothing of it is in the way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from structlog.contextvars import bound_contextvars
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, HTTPServerRequest, RequestStartLine, ResponseStartLine
from tornado.web import Application, RequestHandler

from server.handlers.door import Door

if TYPE_CHECKING:
    from pipeline.otel import Span, Tracing, Value

_UNTRACED: Final = {"/healthz", "/readyz", "/metrics"}
"""What probes and scrapers ask for every few seconds."""

_HTTP_VERSIONS: Final = {"HTTP/1.0": "1.0", "HTTP/1.1": "1.1"}


class TracedApplication(Application):
    """The application, each request of it in a span: the current one of whatever its handler does."""

    def __init__(self, tracing: Tracing, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._tracing = tracing
        self._spans: WeakKeyDictionary[HTTPServerRequest, Span] = WeakKeyDictionary()

    def get_handler_delegate(  # type: ignore[override]  # Tornado names a private class where it needs this interface
        self, request: HTTPServerRequest, target_class: type[RequestHandler], *args: Any, **kwargs: Any
    ) -> HTTPMessageDelegate:
        delegate = super().get_handler_delegate(request, target_class, *args, **kwargs)
        route = target_class.address if issubclass(target_class, Door) else Door.address
        if route in _UNTRACED:
            return delegate
        span = self._spans[request] = self._begin(request, _method(request, target_class), route)
        return _TracedDelegate(self._tracing, span, delegate, partial(self._leave, request))

    def _begin(self, request: HTTPServerRequest, method: str, route: str) -> Span:
        known = route != Door.address
        return self._tracing.start(
            f"{method} {route}" if known else method,
            "server",
            _asked(request, method, route if known else None),
            context=self._tracing.incoming(request.headers),
        )

    def _leave(self, request: HTTPServerRequest) -> None:
        """The client left before its request was whole, which no log tells."""
        span = self._spans.pop(request, None)
        if span is not None:
            self._tracing.fail(span, "client_left")
            span.end()

    def log_request(self, handler: RequestHandler) -> None:
        """Tornado's call when an answer is complete."""
        super().log_request(handler)
        span = self._spans.pop(handler.request, None)
        if span is not None:
            _end(self._tracing, span, handler)


class _TracedDelegate(HTTPMessageDelegate):
    """Passes a request on; the handler's task, which begins in one of these, takes the span along."""

    def __init__(self, tracing: Tracing, span: Span, delegate: HTTPMessageDelegate, leave: Callable[[], None]) -> None:
        self._tracing = tracing
        self._span = span
        self._delegate = delegate
        self._leave = leave

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        return self._within(lambda: self._delegate.headers_received(start_line, headers))

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._delegate.data_received(chunk)

    def finish(self) -> None:
        self._within(self._delegate.finish)

    def on_connection_close(self) -> None:
        self._delegate.on_connection_close()
        self._leave()

    def _within(self, call: Callable[[], Awaitable[None] | None]) -> Awaitable[None] | None:
        """The log's lines get the trace's id too."""
        with self._tracing.current(self._span), bound_contextvars(trace_id=self._tracing.id_of(self._span)):
            return call()


def _method(request: HTTPServerRequest, target: type[RequestHandler]) -> str:
    """Of the methods that HTTP knows; anybody can make up others."""
    return str(request.method) if request.method in target.SUPPORTED_METHODS else "_OTHER"


def _asked(request: HTTPServerRequest, method: str, route: str | None) -> dict[str, Value]:
    """What is known of a request when it comes. The route stands for the path, in which a stream's id may be."""
    told: dict[str, Value | None] = {
        "http.request.method": method,
        "http.route": route,
        "url.scheme": request.protocol,
        "url.path": route,
        "server.address": request.host_name,
        "client.address": request.remote_ip,
        "network.protocol.version": _HTTP_VERSIONS.get(request.version),
        "user_agent.original": request.headers.get("User-Agent"),
    }
    return {name: value for name, value in told.items() if value}


def _end(tracing: Tracing, span: Span, handler: RequestHandler) -> None:
    status = handler.get_status()
    span.set_attribute("http.response.status_code", status)
    if isinstance(handler, Door):
        span.set_attribute("forgeline.request_id", handler.request_id)
    if status >= 500:
        tracing.fail(span, str(status))
    span.end()
