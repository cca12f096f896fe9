"""Spans of what the server answers: HTTP requests, and inferences on WebSockets.

Only where requests are traced is anything of this wrapped around the application.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from structlog.contextvars import bound_contextvars
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, HTTPServerRequest, RequestStartLine, ResponseStartLine
from tornado.web import Application, RequestHandler

from pipeline.errors import ForgelineError
from server.handlers.base import BaseHandler
from server.openapi.route import UNKNOWN_PATH

if TYPE_CHECKING:
    from pipeline.telemetry.otel import AttributeValue, Span, Tracing

_UNTRACED: Final = {"/healthz", "/readyz", "/metrics"}
"""The paths that probes and scrapers request every few seconds."""

_HTTP_VERSIONS: Final = {"HTTP/1.0": "1.0", "HTTP/1.1": "1.1"}


class TracedApplication(Application):
    """An application with a span for each request, from its headers to the last byte of its answer.

    The span is the current one in whatever the request's handler does.
    """

    def __init__(self, tracing: Tracing, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._tracing = tracing
        self._spans: WeakKeyDictionary[HTTPServerRequest, Span] = WeakKeyDictionary()

    def get_handler_delegate(  # type: ignore[override]  # Tornado names a private class where it needs this interface
        self,
        request: HTTPServerRequest,
        target_class: type[RequestHandler],
        target_kwargs: Mapping[str, Any],
        **path: Any,
    ) -> HTTPMessageDelegate:
        delegate = super().get_handler_delegate(request, target_class, dict(target_kwargs), **path)
        route = target_kwargs["route_path"]
        if route in _UNTRACED:
            return delegate
        span = self._spans[request] = self._start_span(request, _method_name(request, target_class), route)
        return _TracedDelegate(self._tracing, span, delegate, partial(self._on_disconnect, request))

    def _start_span(self, request: HTTPServerRequest, method: str, route: str) -> Span:
        is_known = route != UNKNOWN_PATH
        return self._tracing.start_span(
            f"{method} {route}" if is_known else method,
            "server",
            _request_attributes(request, method, route if is_known else None),
            context=self._tracing.extract_context(request.headers),
        )

    def _on_disconnect(self, request: HTTPServerRequest) -> None:
        """End the span of a request whose client left before it was complete: no log line tells of it."""
        span = self._spans.pop(request, None)
        if span is not None:
            self._tracing.mark_failed(span, "client_left")
            span.end()

    def log_request(self, handler: RequestHandler) -> None:
        """End the span: Tornado calls this when an answer is complete."""
        super().log_request(handler)
        span = self._spans.pop(handler.request, None)
        if span is None:
            return
        status = handler.get_status()
        span.set_attribute("http.response.status_code", status)
        if isinstance(handler, BaseHandler):
            span.set_attribute("forgeline.request_id", handler.request_id)
        if status >= 500:
            self._tracing.mark_failed(span, str(status))
        span.end()


class _TracedDelegate(HTTPMessageDelegate):
    """Passes a request on within its span: the handler's task, which is created here, inherits that."""

    def __init__(
        self, tracing: Tracing, span: Span, delegate: HTTPMessageDelegate, on_disconnect: Callable[[], None]
    ) -> None:
        self._tracing = tracing
        self._span = span
        self._delegate = delegate
        self._on_disconnect = on_disconnect

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        return self._call_within_span(lambda: self._delegate.headers_received(start_line, headers))

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._delegate.data_received(chunk)

    def finish(self) -> None:
        self._call_within_span(self._delegate.finish)

    def on_connection_close(self) -> None:
        self._delegate.on_connection_close()
        self._on_disconnect()

    def _call_within_span(self, call: Callable[[], Awaitable[None] | None]) -> Awaitable[None] | None:
        """Log lines get the trace's id too."""
        with self._tracing.use_span(self._span), bound_contextvars(trace_id=self._tracing.trace_id_of(self._span)):
            return call()


def _method_name(request: HTTPServerRequest, target: type[RequestHandler]) -> str:
    """The method, if HTTP knows it: a client may make up others."""
    return str(request.method) if request.method in target.SUPPORTED_METHODS else "_OTHER"


def _request_attributes(request: HTTPServerRequest, method: str, route: str | None) -> dict[str, AttributeValue]:
    """What is known when a request comes. The route is used as path, since a path may contain a stream's id."""
    attributes: dict[str, AttributeValue | None] = {
        "http.request.method": method,
        "http.route": route,
        "url.scheme": request.protocol,
        "url.path": route,
        "server.address": request.host_name,
        "client.address": request.remote_ip,
        "network.protocol.version": _HTTP_VERSIONS.get(request.version),
        "user_agent.original": request.headers.get("User-Agent"),
    }
    return {name: value for name, value in attributes.items() if value}


class SocketTracer:
    """Traces one WebSocket: each inference is a server span, in the trace that the handshake named.

    Where the handshake named none, each inference begins a trace of its own: a socket may live for days.
    """

    def __init__(self, tracing: Tracing, headers: Mapping[str, str], route: str) -> None:
        self._tracing = tracing
        self._context = tracing.extract_context(headers)
        self._route = route
        self._handshake = tracing.current_span()

    def trace_inference(self, request_id: str, start: Callable[[], asyncio.Task[None]]) -> None:
        """Call `start` within a span that ends with the task that `start` returns."""
        tracing = self._tracing
        attributes = {
            "network.protocol.name": "websocket",
            "http.route": self._route,
            "forgeline.request_id": request_id,
        }
        span = tracing.start_span(
            f"infer {self._route}", "server", attributes, context=self._context, link=self._handshake
        )
        with tracing.use_span(span), bound_contextvars(trace_id=tracing.trace_id_of(span)):
            try:
                task = start()
            except ForgelineError as error:
                tracing.mark_failed(span, error)
                span.end()
                raise
        task.add_done_callback(lambda _: span.end())
