"""docs/TRACES.md: it lists every span attribute, and its outline is that of a real trace."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

from opentelemetry.semconv import attributes as stable
from opentelemetry.semconv._incubating import attributes as incubating

from pipeline.presets.pipeline import DEFAULT_STAGES
from tests.async_tests import async_test
from tests.processes import ROOT
from tests.running_server import running_server, upstream_model
from tests.traces import PAGE, TRACEPARENT, InMemorySpans, documented_outline
from tests.upstream import Upstream, error_response, stream_response

SOURCES = (
    "pipeline/telemetry/otel.py",
    "pipeline/telemetry/spans.py",
    "pipeline/telemetry/content.py",
    "server/observability/spans.py",
    "infraforge_runner/jobs/spans.py",
)
NAME = r"(?:client|cloud|error|forgeline|gen_ai|http|network|process|server|url|user_agent)\.[a-z_.]+"


def code_attributes() -> set[str]:
    """Return the names of all attributes that the code can set."""
    sources = "".join((ROOT / source).read_text(encoding="utf-8") for source in SOURCES)
    return set(re.findall(f'"({NAME})"', sources))


def test_traces_page_lists_exactly_the_attributes_in_code() -> None:
    assert sorted(re.findall(rf"^\| `({NAME})` \|", PAGE, re.MULTILINE)) == sorted(code_attributes())


def test_foreign_span_attributes_are_semantic_conventions() -> None:
    own = {name for name in code_attributes() if name.startswith("forgeline.")}
    assert code_attributes() - own - set(convention_attributes()) == set()


@async_test
async def test_traces_page_outline_matches_real_trace(tmp_path: Path) -> None:
    spans, responses = InMemorySpans(), iter([error_response(503, "busy"), stream_response(["Hello"])])
    async with Upstream() as up:
        up.response = lambda request: next(responses)(request)  # noqa: PLW0108 - each request has the next one
        models = {"my-model": upstream_model(up.base_url, "qwen3", retry={"backoff": 0.001})}
        async with running_server(tmp_path, models=models, stages=list(DEFAULT_STAGES), traces=spans.tracing) as server:
            await server.post("/api/stream/my-model", {"text": "hi"}, traceparent=TRACEPARENT)
            await server.wait_until_idle()
    assert spans.outline() == documented_outline(0)


def convention_attributes() -> Iterator[str]:
    """Yield the names of all attributes of OpenTelemetry's semantic conventions, stable or not."""
    for package in (stable, incubating):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            constants = vars(importlib.import_module(module.name)).values()
            yield from (constant for constant in constants if isinstance(constant, str))
