"""Real servers that export: over OTLP to a collector, by OpenTelemetry's own variables; or not at all."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.aio import unhurried
from tests.processes import ROOT, running
from tests.serving import asks, says
from tests.traces import CLIENT_SPAN, CLIENT_TRACE, TRACEPARENT, Collector
from tests.upstream import Upstream

HI = {"text": "hi"}
OFF = """
import asyncio, sys, tempfile
from pathlib import Path
from tests.serving import asks, serving
from tests.upstream import Upstream

async def main():
    async with Upstream() as up, serving(Path(tempfile.mkdtemp()), models={"m": asks(up.base_url)}) as server:
        await server.post("/api/models/m", {"text": "hi"}, traceparent="%s")
        print("traceparent" in up.requests[0].headers)
        runtime = server.services.runtime
        print([type(stage).__name__ for stage in runtime._edition.pipeline.stages])
        print(runtime.context.providers == runtime.providers, type(server.services.runtime.context.tracing))
    print([name for name in sys.modules if name.startswith(("opentelemetry", "pipeline.otel"))])

asyncio.run(main())
"""


@unhurried
async def test_a_server_exports_what_it_did_and_the_last_of_it_when_it_ends(tmp_path: Path) -> None:
    async with Collector() as collector, Upstream() as up:
        environ = {**collector.environ, "OTEL_BSP_SCHEDULE_DELAY": "60000", "OTEL_SERVICE_NAME": "gateway"}
        async with running(tmp_path, models={"m": asks(up.base_url)}, environ=environ) as process:
            headers = {"traceparent": TRACEPARENT}
            async with process.http.post(process.url + "/api/models/m", json=HI, headers=headers) as response:
                assert response.status == 200
            assert (await process.stopped()).code == 0
        assert collector.services == {"gateway"}
        way = collector.way_to(collector.one("chat m"))
        assert (way[0].name, way[0].kind) == ("POST /api/models/{name}", "SERVER")
        assert (way[0].trace, way[0].parent) == (CLIENT_TRACE, CLIENT_SPAN)
        assert way[-1].sent(up.requests[0].headers)
        assert way[-1].attributes["gen_ai.usage.output_tokens"] == 2


@pytest.mark.slow
@unhurried
async def test_a_collector_that_is_not_there_costs_no_answer_and_holds_up_no_end(tmp_path: Path) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "10"}
    async with running(tmp_path, models={"m": says("echo")}, environ=environ) as process:
        for _ in range(3):
            async with process.http.post(process.url + "/api/models/m", json=HI) as response:
                assert response.status == 200
        async with asyncio.timeout(20):
            assert (await process.stopped()).code == 0


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "no exporter 'zipkin' is installed"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "carrier-pigeon"},
            "'otlp over carrier-pigeon'",
        ),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, "max_queue_size must be"),
    ],
)
@unhurried
async def test_where_traces_can_not_be_had_the_log_says_why_and_the_server_serves(
    tmp_path: Path, environ: dict[str, str], words: str
) -> None:
    async with running(tmp_path, models={"m": says("echo")}, environ=environ) as process:
        assert await process.status("/readyz") == 200
        assert words in process.said()
        assert "Traceback" not in process.said()


@unhurried
async def test_without_the_extra_the_log_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "opentelemetry.py").write_text("raise ModuleNotFoundError(name=__name__)")  # shadows the real one
    environ = {"OTEL_TRACES_EXPORTER": "otlp", "PYTHONPATH": str(tmp_path)}
    async with running(tmp_path, models={"m": says("echo")}, environ=environ) as process:
        assert await process.status("/readyz") == 200
        assert "install the extra `traces`" in process.said()


@unhurried
async def test_switched_off_nothing_of_it_is_there() -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OFF % TRACEPARENT, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    stages = "['DecodeFrames', 'RouteModel', 'FitFrames', 'Limit', 'Invoke', 'NormalizeEnvelope']"
    assert out.decode().splitlines()[-4:] == ["False", stages, "True <class 'NoneType'>", "[]"]
