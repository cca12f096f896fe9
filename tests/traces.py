"""Traces for tests: spans kept in memory by the SDK's own exporter, or received over HTTP as a collector does.

kept = Kept()
async with serving(tmp_path, models={...}, traces=kept.tracing) as server: ...
kept.one("POST /api/models/{name}"); kept.outline()

async with Collector() as collector: ...    # collector.environ is what a process needs to export to it
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
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Received
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Sampler
from opentelemetry.trace import format_span_id, format_trace_id

from pipeline.otel import Tracing
from tests.processes import ROOT

CLIENT_TRACE, CLIENT_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-01"
"""What a client sends who is part of a trace."""


@dataclass(frozen=True)
class Told:
    """A span that has been exported, however that came about. Times are in nanoseconds since the epoch."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    began: int
    ended: int
    attributes: dict[str, Any]
    failed: bool
    events: tuple[tuple[str, dict[str, Any]], ...]
    links: tuple[str, ...] = ()

    def sent(self, headers: Mapping[str, str]) -> bool:
        """Whether these headers say that it was this span which sent them."""
        return headers["traceparent"].split("-")[1:3] == [self.trace, self.id]


PAGE = (ROOT / "docs/TRACES.md").read_text(encoding="utf-8")


def picture(number: int) -> list[str]:
    """An outline, as the page on traces draws it; two spaces end a span's name."""
    block = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)[number]
    return [re.match(r" *\S+(?: \S+)*", line)[0] for line in block.splitlines()]  # type: ignore[index]  # no line is empty


class Spans:
    """What has been exported so far."""

    def told(self) -> Sequence[Told]:
        raise NotImplementedError

    def named(self, name: str) -> list[Told]:
        return [span for span in self.told() if span.name == name]

    def one(self, name: str) -> Told:
        (span,) = self.named(name)
        return span

    def way_to(self, span: Told) -> list[Told]:
        """From the one that has no parent here, down to this one."""
        above = next((one for one in self.told() if one.id == span.parent), None)
        return [span] if above is None else [*self.way_to(above), span]

    def outline(self, parent: str | None = None, indent: str = "") -> list[str]:
        """All names, each below its parent, in the order in which they began."""
        known = {span.id for span in self.told()}
        below = [span for span in self.told() if (span.parent == parent if parent else span.parent not in known)]
        lines = []
        for span in sorted(below, key=lambda span: span.began):
            lines += [f"{indent}{span.name}", *self.outline(span.id, indent + "  ")]
        return lines


class Kept(Spans):
    """Spans of a server in this process."""

    def __init__(self, *, captures_text: bool = False, sampler: Sampler = DEFAULT_ON) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider, captures_text=captures_text)

    def told(self) -> Sequence[Told]:
        return [_of_sdk(span) for span in self._exporter.get_finished_spans()]


class Collector(Spans):
    """An OTLP receiver over HTTP: what comes is read with OpenTelemetry's own types. `services` sent it."""

    def __init__(self) -> None:
        self.services: set[str] = set()
        self.raw = b""
        self._spans: list[Told] = []
        self._came = asyncio.Condition()

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

    def told(self) -> Sequence[Told]:
        return self._spans

    async def until(self, condition: Callable[[], object]) -> None:
        """Returns when what has come makes this true."""
        async with self._came:
            await self._came.wait_for(condition)

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.raw += body
        sent = ExportTraceServiceRequest.FromString(body)
        async with self._came:
            for resource in sent.resource_spans:
                attributes = {one.key: _value(one.value) for one in resource.resource.attributes}
                self.services.add(attributes["service.name"])
                for scope in resource.scope_spans:
                    self._spans += [_of_wire(span) for span in scope.spans]
            self._came.notify_all()
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")


def _of_sdk(span: ReadableSpan) -> Told:
    assert span.context is not None
    return Told(
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


def _of_wire(span: Received) -> Told:
    return Told(
        span.name,
        Received.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        {one.key: _value(one.value) for one in span.attributes},
        span.status.code == 2,
        tuple((event.name, {one.key: _value(one.value) for one in event.attributes}) for event in span.events),
    )


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(map(_value, value.array_value.values))
    return None if kind is None else getattr(value, kind)
