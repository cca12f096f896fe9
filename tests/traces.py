"""Exported spans for tests: in memory, by the SDK's exporter, or received over HTTP by a collector.

spans = InMemorySpans()
async with running_server(tmp_path, models={...}, traces=spans.tracing) as server: ...
spans.find_one("POST /api/models/{name}"); spans.outline()

async with OtlpCollector() as collector: ...    # collector.environ: the variables with which a process exports to it
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtobufSpan
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Sampler
from opentelemetry.trace import format_span_id, format_trace_id

from pipeline.telemetry.otel import Tracing
from tests.processes import ROOT

CLIENT_TRACE, CLIENT_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-01"
"""The header of a client whose request is part of a trace."""


@dataclass(frozen=True)
class ExportedSpan:
    """An exported span. Times are in nanoseconds since the epoch."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    started_at: int
    ended_at: int
    attributes: dict[str, Any]
    failed: bool
    events: tuple[tuple[str, dict[str, Any]], ...]
    links: tuple[str, ...] = ()

    def is_parent_in(self, headers: Mapping[str, str]) -> bool:
        """Whether this span is the parent in these headers."""
        return headers["traceparent"].split("-")[1:3] == [self.trace, self.id]


PAGE = (ROOT / "docs/TRACES.md").read_text(encoding="utf-8")


def documented_outline(number: int) -> list[str]:
    """Return the span names of an outline in docs/TRACES.md; two spaces end a name."""
    block = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)[number]
    return [re.match(r" *\S+(?: \S+)*", line)[0] for line in block.splitlines()]  # type: ignore[index]  # no line is empty


class SpanStore:
    """The spans that have been exported so far."""

    def spans(self) -> Sequence[ExportedSpan]:
        raise NotImplementedError

    def find_all(self, name: str) -> list[ExportedSpan]:
        return [span for span in self.spans() if span.name == name]

    def find_one(self, name: str) -> ExportedSpan:
        (span,) = self.find_all(name)
        return span

    def path_to(self, span: ExportedSpan) -> list[ExportedSpan]:
        """Return the spans from the root down to this one."""
        parent = next((candidate for candidate in self.spans() if candidate.id == span.parent), None)
        return [span] if parent is None else [*self.path_to(parent), span]

    def outline(self, parent: str | None = None, indent: str = "") -> list[str]:
        """Return all names, each indented below its parent, in the order of their start."""
        ids = {span.id for span in self.spans()}
        children = [span for span in self.spans() if (span.parent == parent if parent else span.parent not in ids)]
        lines = []
        for span in sorted(children, key=lambda span: span.started_at):
            lines += [f"{indent}{span.name}", *self.outline(span.id, indent + "  ")]
        return lines


class InMemorySpans(SpanStore):
    """The spans of a server in this process."""

    def __init__(self, *, captures_content: bool = False, sampler: Sampler = DEFAULT_ON) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider, captures_content=captures_content)

    def spans(self) -> Sequence[ExportedSpan]:
        return [_from_sdk(span) for span in self._exporter.get_finished_spans()]


class OtlpCollector(SpanStore):
    """An OTLP receiver over HTTP. `services` are the names of the services that sent spans."""

    def __init__(self) -> None:
        self.services: set[str] = set()
        self.raw = b""
        self._spans: list[ExportedSpan] = []
        self._received = asyncio.Condition()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v1/traces", self._receive)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{host}:{port}", "OTEL_BSP_SCHEDULE_DELAY": "50"}
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._runner.cleanup()

    def spans(self) -> Sequence[ExportedSpan]:
        return self._spans

    async def wait_until(self, condition: Callable[[], object]) -> None:
        """Return once the received spans make this condition true."""
        async with self._received:
            await self._received.wait_for(condition)

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.raw += body
        request_spans = ExportTraceServiceRequest.FromString(body)
        async with self._received:
            for resource in request_spans.resource_spans:
                attributes = {item.key: _value(item.value) for item in resource.resource.attributes}
                self.services.add(attributes["service.name"])
                for scope in resource.scope_spans:
                    self._spans += [_from_protobuf(span) for span in scope.spans]
            self._received.notify_all()
        response = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=response, content_type="application/x-protobuf")


def _from_sdk(span: ReadableSpan) -> ExportedSpan:
    assert span.context is not None
    return ExportedSpan(
        span.name,
        span.kind.name,
        format_trace_id(span.context.trace_id),
        format_span_id(span.context.span_id),
        "" if span.parent is None else format_span_id(span.parent.span_id),
        span.start_time or 0,
        span.end_time or 0,
        dict(span.attributes or {}),
        not span.status.is_ok,
        tuple((event.name, dict(event.attributes or {})) for event in span.events),
        tuple(format_span_id(link.context.span_id) for link in span.links),
    )


def _from_protobuf(span: ProtobufSpan) -> ExportedSpan:
    return ExportedSpan(
        span.name,
        ProtobufSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        {item.key: _value(item.value) for item in span.attributes},
        span.status.code == 2,
        tuple((event.name, {item.key: _value(item.value) for item in event.attributes}) for event in span.events),
    )


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(map(_value, value.array_value.values))
    return None if kind is None else getattr(value, kind)
