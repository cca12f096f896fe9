"""Traces of real server processes: exported over OTLP, unavailable, and disabled."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.async_tests import slow_async_test
from tests.processes import ROOT, running_process
from tests.running_server import scripted_model, upstream_model
from tests.traces import CLIENT_SPAN, CLIENT_TRACE, TRACEPARENT, OtlpCollector
from tests.upstream import Upstream

HI = {"text": "hi"}
DISABLED_TRACING = """
import asyncio, sys, tempfile
from pathlib import Path
from tests.running_server import running_server, upstream_model
from tests.upstream import Upstream

async def main():
    folder = Path(tempfile.mkdtemp())
    async with Upstream() as up, running_server(folder, models={"m": upstream_model(up.base_url)}) as server:
        await server.post("/api/models/m", {"text": "hi"}, traceparent="%s")
        print("traceparent" in up.requests[0].headers)
        runtime = server.services.runtime
        print([type(stage).__name__ for stage in runtime._version.pipeline.stages])
        print(runtime.context.providers == runtime.providers, type(server.services.runtime.context.tracing))
    print([name for name in sys.modules if name.startswith(("opentelemetry", "pipeline.telemetry.otel"))])

asyncio.run(main())
"""


@slow_async_test
async def test_server_exports_spans_including_last_ones_at_shutdown(tmp_path: Path) -> None:
    async with OtlpCollector() as collector, Upstream() as up:
        environ = {**collector.environ, "OTEL_BSP_SCHEDULE_DELAY": "60000", "OTEL_SERVICE_NAME": "gateway"}
        async with running_process(tmp_path, models={"m": upstream_model(up.base_url)}, environ=environ) as process:
            headers = {"traceparent": TRACEPARENT}
            async with process.http.post(process.url + "/api/models/m", json=HI, headers=headers) as response:
                assert response.status == 200
            assert (await process.stop()).code == 0
        assert collector.services == {"gateway"}
        path = collector.path_to(collector.find_one("chat m"))
        assert (path[0].name, path[0].kind) == ("POST /api/models/{name}", "SERVER")
        assert (path[0].trace, path[0].parent) == (CLIENT_TRACE, CLIENT_SPAN)
        assert path[-1].is_parent_in(up.requests[0].headers)
        assert path[-1].attributes["gen_ai.usage.output_tokens"] == 2


@pytest.mark.slow
@slow_async_test
async def test_server_without_reachable_collector_answers_and_stops(tmp_path: Path) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "10"}
    async with running_process(tmp_path, models={"m": scripted_model("echo")}, environ=environ) as process:
        for _ in range(3):
            async with process.http.post(process.url + "/api/models/m", json=HI) as response:
                assert response.status == 200
        async with asyncio.timeout(20):
            assert (await process.stop()).code == 0


@pytest.mark.parametrize(
    ("environ", "error"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "no exporter 'zipkin' is installed"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "carrier-pigeon"},
            "'otlp over carrier-pigeon'",
        ),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, "max_queue_size must be"),
    ],
)
@slow_async_test
async def test_invalid_trace_exporter_is_logged_and_server_starts(
    tmp_path: Path, environ: dict[str, str], error: str
) -> None:
    async with running_process(tmp_path, models={"m": scripted_model("echo")}, environ=environ) as process:
        assert await process.get_status("/readyz") == 200
        assert error in process.stderr()
        assert "Traceback" not in process.stderr()


@slow_async_test
async def test_missing_traces_extra_is_logged_and_server_starts(tmp_path: Path) -> None:
    (tmp_path / "opentelemetry.py").write_text("raise ModuleNotFoundError(name=__name__)")  # shadows the real one
    environ = {"OTEL_TRACES_EXPORTER": "otlp", "PYTHONPATH": str(tmp_path)}
    async with running_process(tmp_path, models={"m": scripted_model("echo")}, environ=environ) as process:
        assert await process.get_status("/readyz") == 200
        assert "install the extra `traces`" in process.stderr()


@slow_async_test
async def test_disabled_tracing_imports_no_opentelemetry_and_wraps_nothing() -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DISABLED_TRACING % TRACEPARENT, cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    stages = "['DecodeFrames', 'RouteModel', 'FitFrames', 'Limit', 'Invoke', 'NormalizeEnvelope']"
    assert out.decode().splitlines()[-4:] == ["False", stages, "True <class 'NoneType'>", "[]"]
