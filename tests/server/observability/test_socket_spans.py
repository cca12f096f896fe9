"""Traces of what a WebSocket's client asks for: each inference is a server's span, in the handshake's trace."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.async_tests import async_test
from tests.running_server import running_server, scripted_model, spin_until, upstream_model
from tests.sockets import connect_websocket
from tests.traces import CLIENT_SPAN, CLIENT_TRACE, TRACEPARENT, InMemorySpans
from tests.upstream import Upstream, stream_response

pytestmark = pytest.mark.usefixtures("no_sdk_warnings")

STAGES = ["stage decode_frames", "stage route_model", "stage fit_frames", "stage limit", "stage invoke"]


@async_test
async def test_websocket_span_is_in_trace_of_handshake(tmp_path: Path) -> None:
    recorded = InMemorySpans()
    async with (
        Upstream() as up,
        running_server(tmp_path, models={"m": upstream_model(up.base_url)}, traces=recorded.tracing) as server,
    ):
        async with connect_websocket(server, traceparent=TRACEPARENT) as client:
            for tag in ("one", "two"):
                await client.send(op="infer", id=tag, model="m", text="hi")
                await client.read_until_complete(tag)
        await server.wait_until_idle()
        sent = [upstream_request.headers for upstream_request in up.requests]
    assert {span.trace for span in recorded.spans()} == {CLIENT_TRACE}
    handshake, first, second = recorded.find_one("GET /ws"), *recorded.find_all("infer /ws")
    assert {span.parent for span in (handshake, first, second)} == {CLIENT_SPAN}
    assert handshake.attributes["http.response.status_code"] == 101
    for number, (infer, call) in enumerate(zip((first, second), recorded.find_all("chat m"), strict=True), 1):
        assert [span.name for span in recorded.path_to(call)] == ["infer /ws", "inference m", *STAGES, "chat m"]
        assert recorded.path_to(call)[0] == infer
        assert infer.kind == "SERVER"
        assert infer.attributes["forgeline.request_id"].endswith(f".{number}")
    assert all(call.is_parent_in(headers) for call, headers in zip(recorded.find_all("chat m"), sent, strict=True))


@async_test
async def test_websocket_span_without_trace_starts_one_linked_to_handshake(
    tmp_path: Path,
) -> None:
    recorded = InMemorySpans()
    async with running_server(tmp_path, models={"m": scripted_model("echo")}, traces=recorded.tracing) as server:
        async with connect_websocket(server, "/ws/stream/m") as client:
            for _ in range(2):
                await client.send(text="hi")
                await client.read_until_complete()
        await server.wait_until_idle()
    first, second = recorded.find_all("infer /ws/stream/{model_name}")
    handshake = recorded.find_one("GET /ws/stream/{model_name}")
    assert len({first.trace, second.trace, handshake.trace}) == 3
    assert first.links == second.links == (handshake.id,)
    assert first.attributes["http.route"] == "/ws/stream/{model_name}"


@async_test
async def test_websocket_span_of_each_model_is_sibling(tmp_path: Path) -> None:
    recorded = InMemorySpans()
    async with running_server(
        tmp_path, models={"a": scripted_model("echo"), "b": scripted_model("echo")}, traces=recorded.tracing
    ) as server:
        async with connect_websocket(server) as client:
            await client.send(op="infer", id=1, models=["a", "b"], text="hi")
            await client.read_until_complete(1)
        await server.wait_until_idle()
    assert {recorded.find_one(f"inference {name}").parent for name in "ab"} == {recorded.find_one("infer /ws").id}


@async_test
async def test_websocket_span_ends_on_cancel_and_marks_rejection(tmp_path: Path) -> None:
    recorded = InMemorySpans()
    async with (
        Upstream() as up,
        running_server(tmp_path, models={"m": upstream_model(up.base_url)}, traces=recorded.tracing) as server,
    ):
        up.response = stream_response(["Hello", asyncio.Event()])
        async with connect_websocket(server) as client:
            await client.send(op="infer", id=1, model="m", text="hi")
            await client.read_until(1, "chunk")
            await client.send(op="cancel", id=2, target=1)
            await client.read_until_complete(1)
            await client.send(op="infer", id=3, model="nobody", text="hi")
            await client.read_until(3, "error")
        await server.wait_until_idle()
        await spin_until(lambda: len(recorded.find_all("infer /ws")) == 2)
    assert recorded.find_one("chat m").attributes["error.type"] == "cancelled"
    assert recorded.find_one("inference m").failed
    cancelled, refused = sorted(recorded.find_all("infer /ws"), key=lambda span: span.started_at)
    assert not cancelled.failed
    assert refused.attributes["error.type"] == "unknown_model"
