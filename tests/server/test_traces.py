"""A request's trace: from the client's header through the stages to the header that the model's server gets."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from pipeline.presets import DEFAULT_STAGES
from tests.aio import asynchronous, soon
from tests.rawhttp import connected
from tests.serving import asks, says, serving, until
from tests.traces import CLIENT_SPAN, CLIENT_TRACE, TRACEPARENT, Kept
from tests.upstream import CUT, Upstream, hang, refusal, stream_of

pytestmark = pytest.mark.usefixtures("quiet_sdk")

SECRET, KEY = "the-word-nobody-may-see", "key-nobody-may-see"
ASKED = {"text": SECRET, "system": SECRET, "stop": [SECRET], "max_tokens": 50, "temperature": 0.5, "top_p": 0.9}
BELOW = ["route_model", "fit_frames", "limit", "circuit_breaker", "retry", "invoke"]
"""The stages of a call that can't be made again at another model, down to the call."""


def indented(depth: int, *names: str) -> list[str]:
    """An outline of names, each below the one before."""
    return [f"{'  ' * (depth + step)}{name}" for step, name in enumerate(names)]


@asynchronous
async def test_one_trace_runs_from_the_clients_header_to_the_upstreams(tmp_path: Path) -> None:
    kept = Kept()
    stages = list(DEFAULT_STAGES)
    async with (
        Upstream() as up,
        serving(tmp_path, models={"m": asks(up.base_url, "big")}, stages=stages, traces=kept.tracing) as server,
    ):
        headers = {"traceparent": TRACEPARENT, "tracestate": "vendor=1", "X-Request-Id": "r-1", "baggage": "a=b"}
        answer = await server.post("/api/models/m", ASKED, **headers)
        assert answer.status == 200
        await server.ended()
        (asked,) = up.requests
    way = kept.way_to(kept.one("chat big"))
    assert [span.name for span in way] == [
        "POST /api/models/{name}",
        "inference m",
        *(f"stage {name}" for name in stages[:-1]),
        "chat big",
    ]
    assert {span.trace for span in kept.told()} == {CLIENT_TRACE}
    assert way[0].parent == CLIENT_SPAN
    assert [span.parent for span in way[1:]] == [span.id for span in way[:-1]]
    assert all(above.began <= below.began <= below.ended <= above.ended for above, below in pairwise(way))
    assert kept.one("stage normalize_envelope").parent == kept.one("stage invoke").id
    assert way[-1].sent(asked.headers)
    assert asked.headers["traceparent"].endswith("-01")
    assert asked.headers["tracestate"] == "vendor=1"
    assert "baggage" not in asked.headers


@asynchronous
async def test_each_span_says_what_the_conventions_want(tmp_path: Path) -> None:
    kept = Kept()
    async with (
        Upstream() as up,
        serving(tmp_path, models={"m": asks(up.base_url, "big")}, traces=kept.tracing) as server,
    ):
        await server.post("/api/models/m", ASKED, **{"X-Request-Id": "r-1", "User-Agent": "curl/8"})
        await server.ended()
        port = int(up.base_url.split(":")[2].partition("/")[0])
    request, inference, call = (kept.one(name) for name in ("POST /api/models/{name}", "inference m", "chat big"))
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
    assert 0 < first_chunk < (call.ended - call.began) / 1e9
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
    assert not any(span.failed or span.events for span in kept.told())


@pytest.mark.parametrize("captures", [False, True])
@asynchronous
async def test_words_are_in_a_trace_only_where_somebody_asked_for_them(tmp_path: Path, captures: bool) -> None:
    kept = Kept(captures_text=captures)
    async with (
        Upstream() as up,
        serving(
            tmp_path, models={"m": asks(up.base_url)}, environ={"FORGELINE_API_KEYS": KEY}, traces=kept.tracing
        ) as server,
    ):
        up.answer = stream_of(["answered: ", SECRET])
        await server.post("/api/models/m", ASKED, **{"X-API-Key": KEY})
        up.answer = refusal(400, SECRET)
        await server.post("/api/models/m", ASKED, **{"X-API-Key": KEY})
        await server.ended()
    everything = repr(kept.told())
    assert (SECRET in everything) == captures
    assert KEY not in everything
    if captures:
        words = kept.named("chat m")[0].attributes
        part = f'[{{"role":"user","parts":[{{"type":"text","content":"{SECRET}"}}]}}]'
        assert words["gen_ai.input.messages"] == part
        assert words["gen_ai.system_instructions"] == f'[{{"type":"text","content":"{SECRET}"}}]'
        assert words["gen_ai.request.stop_sequences"] == (SECRET,)
        assert f'"content":"answered: {SECRET}"' in words["gen_ai.output.messages"]


@asynchronous
async def test_a_calls_span_lasts_as_long_as_its_answer_streams(tmp_path: Path) -> None:
    kept, gate = Kept(), asyncio.Event()
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}, traces=kept.tracing) as server:
        up.answer = stream_of(["Hello", gate, " world"])
        async with server.live("/api/stream/m", {"text": "hi"}) as live:
            assert [(await live.next())["type"] for _ in range(2)] == ["start", "chunk"]
            assert kept.told() == []
            gate.set()
            await live.rest()
        await server.ended()
    call = kept.one("chat m")
    assert call.attributes["gen_ai.response.time_to_first_chunk"] < (call.ended - call.began) / 1e9
    assert kept.one("POST /api/stream/{model_name}").attributes["http.response.status_code"] == 200


@asynchronous
async def test_models_side_by_side_are_siblings(tmp_path: Path) -> None:
    kept = Kept()
    async with (
        Upstream() as up,
        serving(
            tmp_path, models={"a": asks(up.base_url, "a"), "b": asks(up.base_url, "b")}, traces=kept.tracing
        ) as server,
    ):
        up.answers["b"] = refusal(500, "no")
        await server.post("/api/multi-inference", {"text": "hi", "models": ["a", "b"]})
        await server.ended()
        sent = {asked.body["model"]: asked.headers for asked in up.requests}
    request = kept.one("POST /api/multi-inference")
    good, bad = kept.one("inference a"), kept.one("inference b")
    assert good.parent == bad.parent == request.id
    assert (request.failed, good.failed, bad.failed) == (False, False, True)
    assert all(kept.one(f"chat {name}").sent(sent[name]) for name in "ab")


@asynchronous
async def test_a_retry_and_a_fallback_are_spans_of_their_own(tmp_path: Path) -> None:
    kept = Kept()
    models = {
        "first": asks("", "first", fallback=["second"], retry={"attempts": 2, "backoff": 0.001}),
        "second": asks("", "second"),
    }
    async with Upstream() as up:
        for preset in models.values():
            preset["base_url"] = up.base_url
        up.answers["first"] = refusal(503, "busy")
        async with serving(tmp_path, models=models, stages=list(DEFAULT_STAGES), traces=kept.tracing) as server:
            assert (await server.post("/api/models/first", {"text": "hi"})).status == 200
            await server.ended()
    once, again = kept.named("chat first")
    assert once.attributes["error.type"] == again.attributes["error.type"] == "unavailable"
    names = [f"stage {name}" for name in BELOW]
    assert kept.outline() == [
        *indented(0, "POST /api/models/{name}", "inference first", "stage decode_frames", "stage fallback"),
        *indented(4, *names, "chat first"),
        *indented(9, "stage invoke", "chat first"),
        *indented(4, *names, "chat second"),
        *indented(10, "stage normalize_envelope"),
    ]
    assert kept.one("inference first").attributes["forgeline.answered_by"] == "second"
    assert not kept.one("inference first").failed


@asynchronous
async def test_what_fails_before_the_first_token_is_marked_on_every_span_that_it_passed(tmp_path: Path) -> None:
    kept = Kept()
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}, traces=kept.tracing) as server:
        up.answer = refusal(500, "no")
        assert (await server.post("/api/models/m", {"text": "hi"})).status == 500
        await server.ended()
    request, *below = kept.way_to(kept.one("chat m"))
    assert (request.failed, request.attributes["error.type"]) == (True, "500")
    assert {(span.failed, span.attributes["error.type"]) for span in below} == {(True, "model_error")}


@asynchronous
async def test_what_fails_in_mid_stream_is_marked_on_the_call_and_its_inference(tmp_path: Path) -> None:
    kept = Kept()
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}, traces=kept.tracing) as server:
        up.answer = stream_of(["Hello", CUT])
        events = (await server.post("/api/stream/m", {"text": "hi"})).events
        assert events[-2]["code"] == "model_error"
        await server.ended()
    for name in ("chat m", "inference m"):
        assert (kept.one(name).failed, kept.one(name).attributes["error.type"]) == (True, "model_error")


@pytest.mark.parametrize("begun", [False, True])
@asynchronous
async def test_a_stream_whose_client_leaves_ends_all_its_spans(tmp_path: Path, begun: bool) -> None:
    kept = Kept()
    async with (
        Upstream() as up,
        serving(tmp_path, "--heartbeat", "0.05", models={"m": asks(up.base_url)}, traces=kept.tracing) as server,
    ):
        up.answer = stream_of(["Hello", asyncio.Event()]) if begun else hang()
        async with server.live("/api/stream/m", {"text": "hi"}) as live:
            await live.next()
            if begun:
                await live.next()
        await server.ended()
        await soon(up.idle())
        await until(lambda: kept.named("POST /api/stream/{model_name}"))
    for name in ("chat m", "inference m"):
        assert (kept.one(name).failed, kept.one(name).attributes["error.type"]) == (True, "cancelled")


@asynchronous
async def test_a_client_that_leaves_in_the_middle_of_its_request_is_told(tmp_path: Path) -> None:
    kept = Kept()
    async with serving(tmp_path, models={"m": says("echo")}, traces=kept.tracing) as server:
        async with connected(server) as line:
            await line.send(b"POST /api/models/m HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            await until(lambda: server.services.answering._requests)
        await until(kept.told)
    request = kept.one("POST /api/models/{name}")
    assert (request.failed, request.attributes["error.type"]) == (True, "client_left")


@asynchronous
async def test_addresses_are_told_by_their_route_and_probes_not_at_all(tmp_path: Path) -> None:
    kept = Kept()
    async with serving(tmp_path, models={"m": says("echo")}, traces=kept.tracing) as server:
        for path in ("/healthz", "/readyz", "/metrics", "/api/streams/some-streams-id", "/nowhere"):
            await server.get(path)
        await server.request("BREW", "/nowhere")
    assert [span.name for span in kept.told()] == ["GET /api/streams/{stream_id}", "GET", "_OTHER"]
    assert "some-streams-id" not in repr(kept.told())
    assert all(not span.failed for span in kept.told())


@asynchronous
async def test_a_trace_that_is_not_kept_is_handed_on_all_the_same(tmp_path: Path) -> None:
    kept = Kept()
    off = Kept(sampler=ALWAYS_OFF)
    for spans, sent in ((kept, TRACEPARENT.removesuffix("01") + "00"), (off, TRACEPARENT)):
        async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}, traces=spans.tracing) as server:
            assert (await server.post("/api/models/m", {"text": "hi"}, traceparent=sent)).status == 200
            await server.ended()
            version, trace, span, flags = up.requests[0].headers["traceparent"].split("-")
        assert (version, trace, flags) == ("00", CLIENT_TRACE, "00")
        assert span != CLIENT_SPAN
        assert spans.told() == []


@pytest.mark.parametrize(
    "header", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", TRACEPARENT + ", " + TRACEPARENT]
)
@asynchronous
async def test_without_a_header_that_can_be_read_a_trace_begins_here(tmp_path: Path, header: str) -> None:
    kept = Kept()
    async with serving(tmp_path, models={"m": says("echo")}, traces=kept.tracing) as server:
        await server.post("/api/models/m", {"text": "hi"}, traceparent=header)
        await server.ended()
    assert kept.one("POST /api/models/{name}").parent == ""
    assert CLIENT_TRACE not in {span.trace for span in kept.told()}


@asynchronous
async def test_the_log_names_the_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = Kept()
    async with serving(tmp_path, models={"m": says("echo")}, traces=kept.tracing) as server:
        await server.post("/api/models/m", {"text": "hi"}, traceparent=TRACEPARENT)
        await server.ended()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "/api/models/m" in line]
    assert f"trace_id={CLIENT_TRACE}" in line
