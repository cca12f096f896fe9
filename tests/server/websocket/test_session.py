"""/ws: one socket that carries many streams."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.async_tests import async_test
from tests.running_server import running_server, scripted_model, upstream_model
from tests.server.checks import check_stream, text_of
from tests.sockets import JSON, MSGPACK, connect_websocket
from tests.upstream import Upstream, stream_response

PROTOCOLS = pytest.mark.parametrize("protocol", [JSON, MSGPACK])
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c49444154789c63f8cfc0000003010100c9fe92ef0000000049454e44ae426082"
)


@PROTOCOLS
@async_test
async def test_infer_is_whole_stream_under_client_id(tmp_path: Path, protocol: str) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("echo")}) as server,
        connect_websocket(server, protocols=(protocol,)) as client,
    ):
        await client.send(op="infer", id="a", model="m", text="Hello ünï \U0001f525 world")
        assert text_of(check_stream(await client.read_until_complete("a"))["m"]) == "Hello ünï \U0001f525 world"
        await server.wait_until_idle()


@async_test
async def test_infer_events_equal_those_of_http(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("say:a b c; usage:3,4")}) as server,
        connect_websocket(server) as client,
    ):
        await client.send(op="infer", id="a", model="m", text="hi")
        received = await client.read_until_complete("a")
        sse = (await server.post("/api/stream/m", {"text": "hi"})).events
        assert [event.keys() for event in received] == [event.keys() for event in sse]
        assert [(event["type"], event["seq"]) for event in received] == [(event["type"], event["seq"]) for event in sse]
        again = (await server.get(f"/api/streams/{received[0]['stream_id']}")).events
        assert again == received


@async_test
async def test_infer_start_comes_before_first_token(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("hang")}) as server,
        connect_websocket(server) as client,
    ):
        await client.send(op="infer", id="a", model="m", text="hi")
        assert (await client.next_event("a"))["type"] == "start"


@PROTOCOLS
@async_test
async def test_infer_with_several_models_is_one_stream(tmp_path: Path, protocol: str) -> None:
    models = {"good": scripted_model("say:a b c"), "bad": scripted_model("fail:model_error")}
    async with (
        running_server(tmp_path, models=models) as server,
        connect_websocket(server, protocols=(protocol,)) as client,
    ):
        await client.send(op="infer", id="a", models=["good", "bad"], text="hi")
        outcomes = check_stream(await client.read_until_complete("a"))
        assert text_of(outcomes["good"]) == "a b c"
        assert outcomes["bad"]["code"] == "model_error"


@async_test
async def test_infer_frames_are_base64_in_json_and_bytes_in_messagepack(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        async with connect_websocket(server, protocols=(MSGPACK,)) as client:
            await client.send(op="infer", id=1, model="m", text="hi", frames=[PNG])
            start = (await client.read_until_complete(1))[0]
        assert start["request"]["frames_count"] == 1
        async with connect_websocket(server) as client:
            await client.send(op="infer", id=1, model="m", text="hi", frames=["no base64!"])
            assert (await client.read_until(1, "error"))[-1]["code"] == "invalid_request"


@async_test
async def test_infer_ids_are_strings_or_integers(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("echo")}) as server,
        connect_websocket(server) as client,
    ):
        ids = ["1", 1, "", -5, 10**30, 'quo"te %d \n', "é" * 200]
        for number, id in enumerate(ids):
            await client.send(op="infer", id=id, model="m", text=f"text {number}")
        for number, id in enumerate(ids):
            assert text_of(check_stream(await client.read_until_complete(id))["m"]) == f"text {number}"


@async_test
async def test_infer_fifty_streams_on_one_socket_are_whole_and_in_order(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("echo")}) as server,
        connect_websocket(server) as client,
    ):
        texts = [" ".join(f"{n}-{word}" for word in range(100)) for n in range(50)]
        for number, text in enumerate(texts):
            await client.send(op="infer", id=number, model="m", text=text)
        for number, text in enumerate(texts):
            assert text_of(check_stream(await client.read_until_complete(number))["m"]) == text
        await server.wait_until_idle()


@async_test
async def test_infer_limit_of_operations_is_error_under_id(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Upstream() as up, running_server(tmp_path, models={"m": upstream_model(up.base_url)}) as server:
        up.response = stream_response(["Hello", gate, " world"])
        async with connect_websocket(server) as client:
            for number in range(1000):
                await client.send(op="infer", id=number, model="m", text="hi")
            first = [await client.next_event(number) for number in range(1000)]
            begun = [number for number in range(1000) if first[number]["type"] == "start"]
            refused = [received for received in first if received["type"] == "error"]
            assert len(begun) == 256
            assert len(refused) == 744
            assert {(received["code"], received["retry_after"]) for received in refused} == {("rate_limited", 1.0)}
            assert server.services.streams.running_count == 256
            gate.set()
            for number in begun:
                events = [first[number], *await client.read_until_complete(number)]
                assert text_of(check_stream(events)["m"]) == "Hello world"
            await client.send(op="infer", id="again", model="m", text="hi")
            check_stream(await client.read_until_complete("again"))
        await server.wait_until_idle()


@async_test
async def test_infer_limit_of_streams_is_error_under_id(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, "--max-streams", "1", models={"m": scripted_model("hang")}) as server,
        connect_websocket(server) as client,
    ):
        await client.send(op="infer", id="a", model="m", text="hi")
        await client.send(op="infer", id="b", model="m", text="hi")
        assert (await client.next_event("a"))["type"] == "start"
        assert (await client.next_event("b"))["code"] == "rate_limited"


@async_test
async def test_websocket_close_cancels_its_streams(tmp_path: Path) -> None:
    async with Upstream() as up, running_server(tmp_path, models={"m": upstream_model(up.base_url)}) as server:
        up.response = stream_response(["Hello", asyncio.Event()])
        async with connect_websocket(server) as client:
            for number in range(20):
                await client.send(op="infer", id=number, model="m", text="hi")
            for number in range(20):
                await client.read_until(number, "chunk")
        await up.wait_until_idle()
        await server.wait_until_idle()
        assert up.cancelled == 20
        assert not server.services.websockets


@async_test
async def test_websocket_close_right_after_infer_cancels_stream(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("hang")}) as server:
        async with connect_websocket(server) as client:
            await client.send(op="infer", id="a", model="m", text="hi")
        await server.wait_until_idle()
        assert server.scripted.calls == server.scripted.cancelled


@async_test
async def test_stream_socket_serves_one_request_after_the_other(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("echo")}) as server,
        connect_websocket(server, "/ws/stream/m") as client,
    ):
        for text in ("one", "two"):
            await client.send(text=text)
            events = await client.read_until_complete()
            assert text_of(check_stream(events)["m"]) == text
            assert all("id" not in event for event in events if event["type"] != "result")


@async_test
async def test_stream_socket_error_keeps_socket_open(tmp_path: Path) -> None:
    models = {"m": scripted_model("say:Hello; hang")}
    async with running_server(tmp_path, models=models) as server:
        async with connect_websocket(server, "/ws/stream/nobody") as client:
            for _ in range(2):
                await client.send(text="hi")
                assert (await client.next_event())["code"] == "unknown_model"
        async with connect_websocket(server, "/ws/stream/m") as client:
            for wrong in ({}, {"text": 3}, {"text": "hi", "op": "infer"}, {"text": "hi", "models": ["m"]}):
                await client.send(**wrong)
                assert (await client.next_event())["code"] == "invalid_request"
            await client.send(text="hi")
            await client.read_until(None, "chunk")
            await client.send(text="hi")
            received = await client.next_event()
            assert (received["code"], received["error"]) == ("invalid_request", "One at a time.")
