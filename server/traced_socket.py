"""Spans of what a WebSocket's client asks for: one for each inference, until all of it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from structlog.contextvars import bound_contextvars

from pipeline.errors import ForgelineError

if TYPE_CHECKING:
    from pipeline.otel import Tracing


class SocketTrace:
    """One WebSocket's: each inference asked for on it is a server's span, in the trace that the handshake named.

    Where that named none, each begins a trace of its own: a socket may live for days.
    """

    def __init__(self, tracing: Tracing, headers: Mapping[str, str], route: str) -> None:
        self._tracing = tracing
        self._context = tracing.incoming(headers)
        self._route = route
        self._handshake = tracing.current_span()

    def infer(self, request_id: str, begin: Callable[[], asyncio.Task[None]]) -> None:
        """Calls `begin` within a span that lasts as long as the task which that gives."""
        tracing = self._tracing
        attributes = {
            "network.protocol.name": "websocket",
            "http.route": self._route,
            "forgeline.request_id": request_id,
        }
        span = tracing.start(f"infer {self._route}", "server", attributes, context=self._context, link=self._handshake)
        with tracing.current(span), bound_contextvars(trace_id=tracing.id_of(span)):
            try:
                task = begin()
            except ForgelineError as error:
                tracing.fail(span, error)
                span.end()
                raise
        task.add_done_callback(lambda _: span.end())
