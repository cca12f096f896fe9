"""The door to OpenTelemetry: spans begin here, contexts come in and go out, and what has ended is exported.

The only file that imports it, and itself imported only where traces are asked for. Exporting is the SDK's, in a thread
of its own, off every request's path.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from importlib.metadata import entry_points
from typing import Any, Final, Literal
from urllib.parse import urlsplit
from uuid import UUID

from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, format_trace_id, get_current_span, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pipeline.errors import ForgelineError

__all__ = ["Context", "JobIds", "Kind", "Span", "Tracing", "Value", "configure", "nanoseconds"]

Kind = Literal["internal", "server", "client"]
Value = str | bool | int | float | tuple[str, ...]

FLUSH: Final = 5.0  # seconds that a process waits at its end for what is not exported yet

_CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_CAPTURING: Final = {"span_only", "span_and_event", "true"}  # `true` is what it took before it took modes
_PROTOCOLS: Final = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_W3C: Final = TraceContextTextMapPropagator()


class Tracing:
    """One process's spans. `captures_text`: whether spans may hold what was asked and answered."""

    def __init__(self, provider: TracerProvider, *, captures_text: bool = False) -> None:
        self.captures_text = captures_text
        self._provider = provider
        self._tracer = provider.get_tracer("forgeline")

    def start(  # noqa: PLR0913 - as many as a span has
        self,
        name: str,
        kind: Kind = "internal",
        attributes: Mapping[str, Value] | None = None,
        *,
        context: Context | None = None,
        link: Span | None = None,
        at: float | None = None,
    ) -> Span:
        """A span, to be ended by the caller. Its parent is in `context`, else it is the current one.

        `at` is when it began, in seconds since the epoch; None: now.
        """
        links = [] if link is None else [Link(link.get_span_context())]
        began = None if at is None else nanoseconds(at)
        return self._tracer.start_span(name, context, SpanKind[kind.upper()], attributes, links, began)

    def current(self, span: Span) -> AbstractContextManager[Span]:
        """Makes a span the current one for a while; errors pass through untold, for their words may be a client's."""
        return use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False)

    def is_recording(self) -> bool:
        """Whether the current span is one that will be exported."""
        return get_current_span().is_recording()

    def current_span(self) -> Span:
        return get_current_span()

    def fail(self, span: Span, why: BaseException | str) -> None:
        """Marks a span as failed, by a word for what went wrong; never by what it says."""
        span.set_attribute("error.type", why if isinstance(why, str) else _word_for(why))
        span.set_status(StatusCode.ERROR)

    def id_of(self, span: Span) -> str:
        """The trace that a span belongs to, as W3C writes it."""
        return format_trace_id(span.get_span_context().trace_id)

    # --- contexts, as W3C's headers have them ------------------------------------------------------

    def incoming(self, headers: Mapping[str, str]) -> Context:
        """The context that somebody handed over; one without a span where they did not."""
        return _W3C.extract(headers, Context())

    def outgoing(self, headers: MutableMapping[str, str], host: str | None, port: int | None) -> None:
        """Adds the current context to the headers of a call, whose span learns where it goes."""
        _W3C.inject(headers)
        span = get_current_span()
        if host is not None and port is not None and span.is_recording():
            span.set_attributes({"server.address": host, "server.port": port})

    def carrier(self) -> dict[str, str]:
        """The current context, to be kept until somebody else goes on with it."""
        carried: dict[str, str] = {}
        _W3C.inject(carried)
        return carried

    def before_send(self, request: Any, **_: Any) -> None:
        """botocore's event of this name: the request is signed already.

        So the header is not part of the signature, which stays right also where a proxy writes a span of its own.
        """
        url = urlsplit(request.url)
        self.outgoing(request.headers, url.hostname, url.port or (443 if url.scheme == "https" else 80))

    # --- the end -----------------------------------------------------------------------------------

    def close(self, seconds: float = FLUSH) -> None:
        """Exports what is left, for so long at most: the SDK itself would wait for half a minute."""
        closing = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        closing.start()
        closing.join(seconds)


class JobIds(RandomIdGenerator):
    """The first span of a job's process has an id made of the job's, and so has its trace where nobody began one.

    By that a successor goes on with the span of a supervisor that was killed, and took its own with it.
    """

    def __init__(self, job_id: str) -> None:
        self._job = UUID(job_id).int
        self._is_first = True

    def generate_trace_id(self) -> int:
        return self._job

    def generate_span_id(self) -> int:
        if self._is_first:
            self._is_first = False
            return self._job >> 64
        return super().generate_span_id()


def configure(environ: Mapping[str, str], job_id: str | None) -> Tracing:
    """Raises LookupError for an exporter that is not there, and what exporters raise of their variables."""
    named = Resource({"service.name": "forgeline"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(
        resource=Resource.create(dict(named.attributes)),
        shutdown_on_exit=False,  # that has no bound; `close` has
        id_generator=None if job_id is None else JobIds(job_id),
    )
    for name in (environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        provider.add_span_processor(BatchSpanProcessor(_exporter(name.strip(), environ)))
    return Tracing(provider, captures_text=environ.get(_CAPTURE, "").strip().lower() in _CAPTURING)


def nanoseconds(seconds: float) -> int:
    """A time since the epoch, as the SDK counts it."""
    return int(seconds * 1_000_000_000)


def _word_for(error: BaseException) -> str:
    if isinstance(error, ForgelineError):
        return error.code
    return "cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__qualname__


def _exporter(name: str, environ: Mapping[str, str]) -> SpanExporter:
    """By the SDK's own names for exporters: packages add theirs."""
    asked = name
    if name == "otlp":
        protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        asked = f"otlp over {protocol or 'http/protobuf'}"
        name = _PROTOCOLS.get(protocol or "http/protobuf", "")
    found = entry_points(group="opentelemetry_traces_exporter", name=name)
    if not found:
        raise LookupError(f"no exporter {asked!r} is installed")
    exporter: SpanExporter = found[name].load()()
    return exporter
