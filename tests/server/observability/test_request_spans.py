"""A request's trace: from the client's header through the stages to the header that the model's server gets."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from pipeline.presets.pipeline import DEFAULT_STAGES
from tests.async_tests import async_test, within_deadline
from tests.raw_http import raw_connection
from tests.running_server import running_server, scripted_model, spin_until, upstream_model
from tests.traces import CLIENT_SPAN, CLIENT_TRACE, TRACEPARENT, InMemorySpans
from tests.upstream import CUT, Upstream, error_response, hanging_response, stream_response

pytestmark = pytest.mark.usefixtures("no_sdk_warnings")

SECRET, KEY = "the-word-nobody-may-see", "key-nobody-may-see"
BODY = {"text": SECRET, "system": SECRET, "stop": [SECRET], "max_tokens": 50, "temperature": 0.5, "top_p": 0.9}
STAGES = ["route_model", "fit_frames", "retry", "circuit_breaker", "limit", "invoke"]
"""The stages of a call that can't be made again at another model, down to the call."""


def span_lines(depth: int, *names: str) -> list[str]:
    """An outline of names, each below the one before."""
    return [f"{'  ' * (depth + step)}{name}" for step, name in enumerate(names)]


@async_test
async def test_span_trace_runs_from_client_header_to_upstream(tmp_path: Path) -> None:
    recorded = InMemorySpans()
    stages = list(DEFAULT_STAGES)
    async with (
        Upstream() as up,
        running_server(
            tmp_path, models={"m": upstream_model(up.base_url, "big")}, stages=stages, traces=recorded.tracing
        ) as server,
    ):
        headers = {"traceparent": TRACEPARENT, "tracestate": "vendor=1", "X-Request-Id": "r-1", "baggage": "a=b"}
        answer = await server.post("/api/models/m", BODY, **headers)
        assert answer.status == 200
        await server.wait_until_idle()
        (upstream_request,) = up.requests
    way = recorded.path_to(recorded.find_one("chat big"))
    assert [span.name for span in way] == [
        "POST /api/models/{name}",
        "inference m",
        *(f"stage {name}" for name in stages[:-1]),
        "chat big",
    ]
    assert {span.trace for span in recorded.spans()} == {CLIENT_TRACE}
    assert way[0].parent == CLIENT_SPAN
    assert [span.parent for span in way[1:]] == [span.id for span in way[:-1]]
    assert all(
        above.started_at <= below.started_at <= below.ended_at <= above.ended_at for above, below in pairwise(way)
    )
    assert recorded.find_one("stage normalize_envelope").parent == recorded.find_one("stage invoke").id
    assert way[-1].is_parent_in(upstream_request.headers)
    assert upstream_request.headers["traceparent"].endswith("-01")
    assert upstream_request.headers["tracestate"] == "vendor=1"
    assert "baggage" not in upstream_request.headers


@async_test
async def test_span_attributes_follow_conventions(tmp_path: Path) -> None:
    recorded = InMemorySpans()
    async with (
        Upstream() as up,
        running_server(tmp_path, models={"m": upstream_model(up.base_url, "big")}, traces=recorded.tracing) as server,
    ):
        await server.post("/api/models/m", BODY, **{"X-Request-Id": "r-1", "User-Agent": "curl/8"})
        await server.wait_until_idle()
        port = int(up.base_url.split(":")[2].partition("/")[0])
    request, inference, call = (
        recorded.find_one(name) for name in ("POST /api/models/{name}", "inference m", "chat big")
    )
    assert (request.kind, inference.kind, call.kind) == ("SERVER", "INTERNAL", "CLIENT")
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/api/models/{name}",
        "url.path": "/api/models/{name}",
        "url.scheme": "http",
        "server.address": "127.0.0.1",
        "client.address": "127.0.0.1",
        "network.protocol.version": "1.1",
        "user_agent.original": "curl/8",
        "http.response.status_code": 200,
        "forgeline.request_id": "r-1",
    }
    assert inference.attributes == {"forgeline.request_id": "r-1", "forgeline.model": "m"}
    first_chunk = call.attributes.pop("gen_ai.response.time_to_first_chunk")
    assert 0 < first_chunk < (call.ended_at - call.started_at) / 1e9
    assert call.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "big",
        "gen_ai.request.stream": True,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.response.id": call.attributes["gen_ai.response.id"],
        "gen_ai.response.model": call.attributes["gen_ai.response.model"],
        "gen_ai.response.finish_reasons": ("end_turn",),
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 2,
        "server.address": "127.0.0.1",
        "server.port": port,
        "forgeline.model": "m",
    }
    assert not any(span.failed or span.events for span in recorded.spans())


@pytest.mark.parametrize("captures", [False, True])
@async_test
async def test_span_has_content_only_where_enabled(tmp_path: Path, captures: bool) -> None:
    recorded = InMemorySpans(captures_content=captures)
    async with (
        Upstream() as up,
        running_server(
            tmp_path,
            models={"m": upstream_model(up.base_url)},
            environ={"FORGELINE_API_KEYS": KEY},
            traces=recorded.tracing,
        ) as server,
    ):
        up.response = stream_response(["answered: ", SECRET])
        await server.post("/api/models/m", BODY, **{"X-API-Key": KEY})
        up.response = error_response(400, SECRET)
        await server.post("/api/models/m", BODY, **{"X-API-Key": KEY})
        await server.wait_until_idle()
    everything = repr(recorded.spans())
    assert (SECRET in everything) == captures
    assert KEY not in everything
    if captures:
        words = recorded.find_all("chat m")[0].attributes
        part = f'[{{"role":"user","parts":[{{"type":"text","content":"{SECRET}"}}]}}]'
        assert words["gen_ai.input.messages"] == part
        assert words["gen_ai.system_instructions"] == f'[{{"type":"text","content":"{SECRET}"}}]'
        assert words["gen_ai.request.stop_sequences"] == (SECRET,)
        assert f'"content":"answered: {SECRET}"' in words["gen_ai.output.messages"]


@async_test
async def test_span_of_upstream_call_lasts_until_end_of_stream(tmp_path: Path) -> None:
    recorded, gate = InMemorySpans(), asyncio.Event()
    async with (
        Upstream() as up,
        running_server(tmp_path, models={"m": upstream_model(up.base_url)}, traces=recorded.tracing) as server,
    ):
        up.response = stream_response(["Hello", gate, " world"])
        async with server.open_stream("/api/stream/m", {"text": "hi"}) as live:
            assert [(await live.next_event())["type"] for _ in range(2)] == ["start", "chunk"]
            assert recorded.spans() == []
            gate.set()
            await live.remaining_events()
        await server.wait_until_idle()
    call = recorded.find_one("chat m")
    assert call.attributes["gen_ai.response.time_to_first_chunk"] < (call.ended_at - call.started_at) / 1e9
    assert recorded.find_one("POST /api/stream/{model_name}").attributes["http.response.status_code"] == 200


@async_test
async def test_span_of_each_model_of_multi_inference_is_sibling(tmp_path: Path) -> None:
    recorded = InMemorySpans()
    async with (
        Upstream() as up,
        running_server(
            tmp_path,
            models={"a": upstream_model(up.base_url, "a"), "b": upstream_model(up.base_url, "b")},
            traces=recorded.tracing,
        ) as server,
    ):
        up.responses["b"] = error_response(500, "no")
        await server.post("/api/multi-inference", {"text": "hi", "models": ["a", "b"]})
        await server.wait_until_idle()
        sent = {upstream_request.body["model"]: upstream_request.headers for upstream_request in up.requests}
    request = recorded.find_one("POST /api/multi-inference")
    good, bad = recorded.find_one("inference a"), recorded.find_one("inference b")
    assert good.parent == bad.parent == request.id
    assert (request.failed, good.failed, bad.failed) == (False, False, True)
    assert all(recorded.find_one(f"chat {name}").is_parent_in(sent[name]) for name in "ab")


@async_test
async def test_span_for_each_retry_and_fallback(tmp_path: Path) -> None:
    recorded = InMemorySpans()
    models = {
        "first": upstream_model("", "first", fallback=["second"], retry={"attempts": 2, "backoff": 0.001}),
        "second": upstream_model("", "second"),
    }
    async with Upstream() as up:
        for preset in models.values():
            preset["base_url"] = up.base_url
        up.responses["first"] = error_response(503, "busy")
        async with running_server(
            tmp_path, models=models, stages=list(DEFAULT_STAGES), traces=recorded.tracing
        ) as server:
            assert (await server.post("/api/models/first", {"text": "hi"})).status == 200
            await server.wait_until_idle()
    once, again = recorded.find_all("chat first")
    assert once.attributes["error.type"] == again.attributes["error.type"] == "unavailable"
    names = [f"stage {name}" for name in STAGES]
    assert recorded.outline() == [
        *span_lines(0, "POST /api/models/{name}", "inference first", "stage decode_frames", "stage fallback"),
        *span_lines(4, *names, "chat first"),
        *span_lines(7, *names[3:], "chat first"),
        *span_lines(4, *names, "chat second"),
        *span_lines(10, "stage normalize_envelope"),
    ]
    assert recorded.find_one("inference first").attributes["forgeline.answered_by"] == "second"
    assert not recorded.find_one("inference first").failed


@async_test
async def test_span_failure_before_first_token_marks_all_spans(tmp_path: Path) -> None:
    recorded = InMemorySpans()
    async with (
        Upstream() as up,
        running_server(tmp_path, models={"m": upstream_model(up.base_url)}, traces=recorded.tracing) as server,
    ):
        up.response = error_response(500, "no")
        assert (await server.post("/api/models/m", {"text": "hi"})).status == 500
        await server.wait_until_idle()
    request, *below = recorded.path_to(recorded.find_one("chat m"))
    assert (request.failed, request.attributes["error.type"]) == (True, "500")
    assert {(span.failed, span.attributes["error.type"]) for span in below} == {(True, "model_error")}


@async_test
async def test_span_failure_mid_stream_marks_call_and_inference(tmp_path: Path) -> None:
    recorded = InMemorySpans()
    async with (
        Upstream() as up,
        running_server(tmp_path, models={"m": upstream_model(up.base_url)}, traces=recorded.tracing) as server,
    ):
        up.response = stream_response(["Hello", CUT])
        events = (await server.post("/api/stream/m", {"text": "hi"})).events
        assert events[-2]["code"] == "model_error"
        await server.wait_until_idle()
    for name in ("chat m", "inference m"):
        assert (recorded.find_one(name).failed, recorded.find_one(name).attributes["error.type"]) == (
            True,
            "model_error",
        )


@pytest.mark.parametrize("begun", [False, True])
@async_test
async def test_span_client_disconnect_ends_all_spans(tmp_path: Path, begun: bool) -> None:
    recorded = InMemorySpans()
    async with (
        Upstream() as up,
        running_server(
            tmp_path, "--heartbeat", "0.05", models={"m": upstream_model(up.base_url)}, traces=recorded.tracing
        ) as server,
    ):
        up.response = stream_response(["Hello", asyncio.Event()]) if begun else hanging_response()
        async with server.open_stream("/api/stream/m", {"text": "hi"}) as live:
            await live.next_event()
            if begun:
                await live.next_event()
        await server.wait_until_idle()
        await within_deadline(up.wait_until_idle())
        await spin_until(lambda: recorded.find_all("POST /api/stream/{model_name}"))
    for name in ("chat m", "inference m"):
        assert (recorded.find_one(name).failed, recorded.find_one(name).attributes["error.type"]) == (True, "cancelled")


@async_test
async def test_span_client_disconnect_during_request_is_marked(tmp_path: Path) -> None:
    recorded = InMemorySpans()
    async with running_server(tmp_path, models={"m": scripted_model("echo")}, traces=recorded.tracing) as server:
        async with raw_connection(server) as connection:
            await connection.send(b"POST /api/models/m HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            await spin_until(lambda: server.services.in_flight._requests)
        await spin_until(recorded.spans)
    request = recorded.find_one("POST /api/models/{name}")
    assert (request.failed, request.attributes["error.type"]) == (True, "client_left")


@async_test
async def test_span_has_route_template_and_probes_have_none(tmp_path: Path) -> None:
    recorded = InMemorySpans()
    async with running_server(tmp_path, models={"m": scripted_model("echo")}, traces=recorded.tracing) as server:
        for path in ("/healthz", "/readyz", "/metrics", "/api/streams/some-streams-id", "/nowhere"):
            await server.get(path)
        await server.request("BREW", "/nowhere")
    assert [span.name for span in recorded.spans()] == ["GET /api/streams/{stream_id}", "GET", "_OTHER"]
    assert "some-streams-id" not in repr(recorded.spans())
    assert all(not span.failed for span in recorded.spans())


@async_test
async def test_span_unsampled_trace_is_propagated(tmp_path: Path) -> None:
    recorded = InMemorySpans()
    off = InMemorySpans(sampler=ALWAYS_OFF)
    for spans, sent in ((recorded, TRACEPARENT.removesuffix("01") + "00"), (off, TRACEPARENT)):
        async with (
            Upstream() as up,
            running_server(tmp_path, models={"m": upstream_model(up.base_url)}, traces=spans.tracing) as server,
        ):
            assert (await server.post("/api/models/m", {"text": "hi"}, traceparent=sent)).status == 200
            await server.wait_until_idle()
            version, trace, span, flags = up.requests[0].headers["traceparent"].split("-")
        assert (version, trace, flags) == ("00", CLIENT_TRACE, "00")
        assert span != CLIENT_SPAN
        assert spans.spans() == []


@pytest.mark.parametrize(
    "header", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", TRACEPARENT + ", " + TRACEPARENT]
)
@async_test
async def test_span_without_valid_header_starts_new_trace(tmp_path: Path, header: str) -> None:
    recorded = InMemorySpans()
    async with running_server(tmp_path, models={"m": scripted_model("echo")}, traces=recorded.tracing) as server:
        await server.post("/api/models/m", {"text": "hi"}, traceparent=header)
        await server.wait_until_idle()
    assert recorded.find_one("POST /api/models/{name}").parent == ""
    assert CLIENT_TRACE not in {span.trace for span in recorded.spans()}


@async_test
async def test_log_has_trace_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = InMemorySpans()
    async with running_server(tmp_path, models={"m": scripted_model("echo")}, traces=recorded.tracing) as server:
        await server.post("/api/models/m", {"text": "hi"}, traceparent=TRACEPARENT)
        await server.wait_until_idle()
    (connection,) = [connection for connection in capsys.readouterr().out.splitlines() if "/api/models/m" in connection]
    assert f"trace_id={CLIENT_TRACE}" in connection
