"""The page on traces, held to the code: every attribute has a row, and the picture is what a server does."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

from opentelemetry.semconv import attributes as stable
from opentelemetry.semconv._incubating import attributes as incubating

from pipeline.presets import DEFAULT_STAGES
from tests.aio import asynchronous
from tests.processes import ROOT
from tests.serving import asks, serving
from tests.traces import PAGE, TRACEPARENT, Kept, picture
from tests.upstream import Upstream, refusal, stream_of

SOURCES = (
    "pipeline/otel.py",
    "pipeline/traced.py",
    "pipeline/traced_text.py",
    "server/traced.py",
    "server/traced_socket.py",
    "infraforge_runner/trace.py",
)
NAME = r"(?:client|cloud|error|forgeline|gen_ai|http|network|process|server|url|user_agent)\.[a-z_.]+"


def attributes() -> set[str]:
    """All that the code can set."""
    sources = "".join((ROOT / source).read_text(encoding="utf-8") for source in SOURCES)
    return set(re.findall(f'"({NAME})"', sources))


def test_every_attribute_has_a_row_and_every_row_an_attribute() -> None:
    assert sorted(re.findall(rf"^\| `({NAME})` \|", PAGE, re.MULTILINE)) == sorted(attributes())


def test_every_attribute_that_is_not_ours_is_one_of_the_conventions() -> None:
    ours = {name for name in attributes() if name.startswith("forgeline.")}
    assert attributes() - ours - set(conventions()) == set()


@asynchronous
async def test_the_picture_of_a_trace_is_one_that_a_server_makes(tmp_path: Path) -> None:
    kept, answers = Kept(), iter([refusal(503, "busy"), stream_of(["Hello"])])
    async with Upstream() as up:
        up.answer = lambda request: next(answers)(request)  # noqa: PLW0108 - each request has the next one
        models = {"my-model": asks(up.base_url, "qwen3", retry={"backoff": 0.001})}
        async with serving(tmp_path, models=models, stages=list(DEFAULT_STAGES), traces=kept.tracing) as server:
            await server.post("/api/stream/my-model", {"text": "hi"}, traceparent=TRACEPARENT)
            await server.ended()
    assert kept.outline() == picture(0)


def conventions() -> Iterator[str]:
    """The names of all attributes that OpenTelemetry's conventions know, stable or not."""
    for package in (stable, incubating):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            constants = vars(importlib.import_module(module.name)).values()
            yield from (constant for constant in constants if isinstance(constant, str))
