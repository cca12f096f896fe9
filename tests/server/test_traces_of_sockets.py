"""Traces of what a WebSocket's client asks for: each inference is a server's span, in the handshake's trace."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.aio import asynchronous
from tests.serving import asks, says, serving, until
from tests.sockets import talking
from tests.traces import CLIENT_SPAN, CLIENT_TRACE, TRACEPARENT, Kept
from tests.upstream import Upstream, stream_of

pytestmark = pytest.mark.usefixtures("quiet_sdk")

STAGES = ["stage decode_frames", "stage route_model", "stage fit_frames", "stage limit", "stage invoke"]


@asynchronous
async def test_each_inference_of_a_socket_is_in_the_trace_of_its_handshake(tmp_path: Path) -> None:
    kept = Kept()
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}, traces=kept.tracing) as server:
        async with talking(server, traceparent=TRACEPARENT) as talk:
            for tag in ("one", "two"):
                await talk.say(op="infer", id=tag, model="m", text="hi")
                await talk.whole(tag)
        await server.ended()
        sent = [asked.headers for asked in up.requests]
    assert {span.trace for span in kept.told()} == {CLIENT_TRACE}
    handshake, first, second = kept.one("GET /ws"), *kept.named("infer /ws")
    assert {span.parent for span in (handshake, first, second)} == {CLIENT_SPAN}
    assert handshake.attributes["http.response.status_code"] == 101
    for number, (infer, call) in enumerate(zip((first, second), kept.named("chat m"), strict=True), 1):
        assert [span.name for span in kept.way_to(call)] == ["infer /ws", "inference m", *STAGES, "chat m"]
        assert kept.way_to(call)[0] == infer
        assert infer.kind == "SERVER"
        assert infer.attributes["forgeline.request_id"].endswith(f".{number}")
    assert all(call.sent(headers) for call, headers in zip(kept.named("chat m"), sent, strict=True))


@asynchronous
async def test_on_a_socket_without_a_trace_each_inference_begins_one_and_is_linked_to_the_handshake(
    tmp_path: Path,
) -> None:
    kept = Kept()
    async with serving(tmp_path, models={"m": says("echo")}, traces=kept.tracing) as server:
        async with talking(server, "/ws/stream/m") as talk:
            for _ in range(2):
                await talk.say(text="hi")
                await talk.whole()
        await server.ended()
    first, second = kept.named("infer /ws/stream/{model_name}")
    handshake = kept.one("GET /ws/stream/{model_name}")
    assert len({first.trace, second.trace, handshake.trace}) == 3
    assert first.links == second.links == (handshake.id,)
    assert first.attributes["http.route"] == "/ws/stream/{model_name}"


@asynchronous
async def test_several_models_of_one_inference_are_siblings(tmp_path: Path) -> None:
    kept = Kept()
    async with serving(tmp_path, models={"a": says("echo"), "b": says("echo")}, traces=kept.tracing) as server:
        async with talking(server) as talk:
            await talk.say(op="infer", id=1, models=["a", "b"], text="hi")
            await talk.whole(1)
        await server.ended()
    assert {kept.one(f"inference {name}").parent for name in "ab"} == {kept.one("infer /ws").id}


@asynchronous
async def test_a_cancelled_inference_ends_its_spans_and_one_that_is_refused_says_why(tmp_path: Path) -> None:
    kept = Kept()
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}, traces=kept.tracing) as server:
        up.answer = stream_of(["Hello", asyncio.Event()])
        async with talking(server) as talk:
            await talk.say(op="infer", id=1, model="m", text="hi")
            await talk.until(1, "chunk")
            await talk.say(op="cancel", id=2, target=1)
            await talk.whole(1)
            await talk.say(op="infer", id=3, model="nobody", text="hi")
            await talk.until(3, "error")
        await server.ended()
        await until(lambda: len(kept.named("infer /ws")) == 2)
    assert kept.one("chat m").attributes["error.type"] == "cancelled"
    assert kept.one("inference m").failed
    cancelled, refused = sorted(kept.named("infer /ws"), key=lambda span: span.began)
    assert not cancelled.failed
    assert refused.attributes["error.type"] == "unknown_model"
