"""The wrapper of OpenTelemetry: starts spans, extracts and injects contexts, and configures the export.

The only file that imports OpenTelemetry, and itself imported only where tracing is on. The SDK exports in a thread of
its own.
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

from opentelemetry.context import Context as TraceContext
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, format_trace_id, get_current_span, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pipeline.errors import ForgelineError

__all__ = [
    "AttributeValue",
    "JobIdGenerator",
    "Span",
    "SpanKindName",
    "Tracing",
    "create_tracing",
    "nanoseconds",
]

SpanKindName = Literal["internal", "server", "client"]
AttributeValue = str | bool | int | float | tuple[str, ...]

FLUSH_SECONDS: Final = 5.0  # that a process waits at its end for the export of its last spans

_CAPTURE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_CAPTURING: Final = {"span_only", "span_and_event", "true"}  # `true` is the value of older versions, without modes
_PROTOCOLS: Final = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_W3C: Final = TraceContextTextMapPropagator()


class Tracing:
    """The tracing of one process. `captures_content`: whether spans may have the texts of requests and responses."""

    def __init__(self, provider: TracerProvider, *, captures_content: bool = False) -> None:
        self.captures_content = captures_content
        self._provider = provider
        self._tracer = provider.get_tracer("forgeline")

    def start_span(  # noqa: PLR0913 - those of a span
        self,
        name: str,
        kind: SpanKindName = "internal",
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        context: TraceContext | None = None,
        link: Span | None = None,
        started_at: float | None = None,
    ) -> Span:
        """Start a span, which the caller ends. Its parent is in `context`, or else the current span.

        `started_at` is in seconds since the epoch; None: now.
        """
        links = [] if link is None else [Link(link.get_span_context())]
        start_time = None if started_at is None else nanoseconds(started_at)
        return self._tracer.start_span(name, context, SpanKind[kind.upper()], attributes, links, start_time)

    def use_span(self, span: Span) -> AbstractContextManager[Span]:
        """Make a span the current one. Exceptions are not recorded: their messages may have content of a client."""
        return use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False)

    def is_recording(self) -> bool:
        """Whether the current span will be exported."""
        return get_current_span().is_recording()

    def current_span(self) -> Span:
        return get_current_span()

    def mark_failed(self, span: Span, error: BaseException | str) -> None:
        """Mark a span as failed, with the error's code or type; never with its message."""
        span.set_attribute("error.type", error if isinstance(error, str) else _error_type(error))
        span.set_status(StatusCode.ERROR)

    def trace_id_of(self, span: Span) -> str:
        """The id of the trace that a span belongs to, in W3C's format."""
        return format_trace_id(span.get_span_context().trace_id)

    # --- contexts in W3C's headers -----------------------------------------------------------------

    def extract_context(self, headers: Mapping[str, str]) -> TraceContext:
        """Return the context in these headers; one without a span where they have none."""
        return _W3C.extract(headers, TraceContext())

    def inject_context(self, headers: MutableMapping[str, str], host: str | None, port: int | None) -> None:
        """Add the current context to the headers of a call, and the server's address to the current span."""
        _W3C.inject(headers)
        span = get_current_span()
        if host is not None and port is not None and span.is_recording():
            span.set_attributes({"server.address": host, "server.port": port})

    def context_headers(self) -> dict[str, str]:
        """Return the current context as headers, to be stored for another process."""
        headers: dict[str, str] = {}
        _W3C.inject(headers)
        return headers

    def on_before_send(self, request: Any, **_: Any) -> None:
        """Handle botocore's event `before-send`, which comes after the request was signed.

        So the header is not part of the signature, which stays valid where a proxy replaces the header.
        """
        url = urlsplit(request.url)
        self.inject_context(request.headers, url.hostname, url.port or (443 if url.scheme == "https" else 80))

    def close(self, seconds: float = FLUSH_SECONDS) -> None:
        """Export the last spans, for at most `seconds`: the SDK's own limit is half a minute."""
        closing = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        closing.start()
        closing.join(seconds)


class JobIdGenerator(RandomIdGenerator):
    """Derives the id of a supervisor's first span from the job's, and that of its trace where the client sent none.

    So the supervisor that replaces a killed one, whose span was lost, creates the same span again.
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


def create_tracing(environ: Mapping[str, str], job_id: str | None) -> Tracing:
    """Create the tracing. Raises LookupError for an exporter that is not installed, and whatever exporters raise."""
    resource = Resource({"service.name": "forgeline"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(
        resource=Resource.create(dict(resource.attributes)),
        shutdown_on_exit=False,  # it has no time limit; `close` has one
        id_generator=None if job_id is None else JobIdGenerator(job_id),
    )
    for name in (environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        provider.add_span_processor(BatchSpanProcessor(_create_exporter(name.strip(), environ)))
    return Tracing(provider, captures_content=environ.get(_CAPTURE, "").strip().lower() in _CAPTURING)


def nanoseconds(seconds: float) -> int:
    """Convert seconds since the epoch to the SDK's nanoseconds."""
    return int(seconds * 1_000_000_000)


def _error_type(error: BaseException) -> str:
    if isinstance(error, ForgelineError):
        return error.code
    return "cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__qualname__


def _create_exporter(name: str, environ: Mapping[str, str]) -> SpanExporter:
    """Create an exporter by its entry point, as the SDK names them."""
    requested = name
    if name == "otlp":
        protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        requested = f"otlp over {protocol or 'http/protobuf'}"
        name = _PROTOCOLS.get(protocol or "http/protobuf", "")
    exporters = entry_points(group="opentelemetry_traces_exporter", name=name)
    if not exporters:
        raise LookupError(f"no exporter {requested!r} is installed")
    exporter: SpanExporter = exporters[name].load()()
    return exporter
