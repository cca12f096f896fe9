"""The ops of /ws: cancel, and messages that are wrong in every way."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.async_tests import async_test, wait_until
from tests.running_server import running_server, scripted_model, upstream_model
from tests.server.checks import LEAKS, check_stream, text_of
from tests.sockets import TEXT, connect_websocket, frame, open_raw_websocket
from tests.upstream import Upstream, stream_response


@async_test
async def test_cancel_of_one_among_fifty_ends_only_that_and_its_upstream_call(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Upstream() as up, running_server(tmp_path, models={"m": upstream_model(up.base_url)}) as server:
        up.response = stream_response(["Hello", gate, " world"])
        async with connect_websocket(server) as client:
            for number in range(50):
                await client.send(op="infer", id=number, model="m", text="hi")
            begun = {number: await client.read_until(number, "chunk") for number in range(50)}
            await client.send(op="cancel", id="c", target=17)
            failure = check_stream(begun.pop(17) + await client.read_until_complete(17))["m"]
            assert failure["code"] == "cancelled"
            await wait_until(lambda: up.cancelled)
            assert (up.cancelled, up.in_flight, server.services.streams.running_count) == (1, 49, 49)
            gate.set()
            for number, events in begun.items():
                assert text_of(check_stream(events + await client.read_until_complete(number))["m"]) == "Hello world"
        await server.wait_until_idle()


@async_test
async def test_cancel_of_infer_ends_stream_for_all_readers(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("say:Hello; hang")}) as server,
        connect_websocket(server) as one,
        connect_websocket(server) as other,
    ):
        await one.send(op="infer", id="a", model="m", text="hi")
        mine = await one.read_until("a", "chunk")
        await other.send(op="resume", id="b", stream_id=mine[0]["stream_id"])
        await other.send(op="resume", id="c", stream_id=mine[0]["stream_id"])
        await other.read_until("b", "chunk")
        await one.send(op="cancel", id="x", target="a")
        mine += await one.read_until_complete("a")
        assert check_stream(mine)["m"]["code"] == "cancelled"
        assert [mine[0], mine[1], *await other.read_until_complete("b")] == mine
        assert await other.read_until_complete("c") == mine


@async_test
async def test_cancel_of_resume_ends_only_that_reader(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        Upstream() as up,
        running_server(tmp_path, models={"m": upstream_model(up.base_url)}) as server,
        connect_websocket(server) as client,
    ):
        up.response = stream_response(["Hello", gate, " world"])
        await client.send(op="infer", id="a", model="m", text="hi")
        events = await client.read_until("a", "chunk")
        await client.send(op="resume", id="b", stream_id=events[0]["stream_id"])
        assert await client.read_until("b", "chunk") == events
        await client.send(op="cancel", id="x", target="b")
        assert await client.next_event("b") == {"type": "complete"}
        gate.set()
        assert text_of(check_stream(events + await client.read_until_complete("a"))["m"]) == "Hello world"


@pytest.mark.parametrize("last", ["cancel", "unsubscribe"])
@async_test
async def test_cancel_right_after_start_ends_operation(tmp_path: Path, last: str) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("hang")}) as server,
        open_raw_websocket(server) as connection,
    ):
        subscribe = {"op": "subscribe", "id": "a", "topics": ["models"]}
        ends = {"cancel": {"op": "cancel", "id": "b", "target": "a"}, "unsubscribe": {**subscribe, "op": "unsubscribe"}}
        await connection.send(b"".join(frame(TEXT, json.dumps(op).encode()) for op in (subscribe, ends[last])))
        while (received := await connection.read_message())["type"] == "snapshot":
            pass
        assert received == {"id": "a", "type": "complete"}
        await connection.send_message(**subscribe)
        assert (await connection.read_message())["type"] == "snapshot"


@async_test
async def test_operation_id_is_reusable_after_complete(tmp_path: Path) -> None:
    async with (
        running_server(
            tmp_path, models={"m": scripted_model("say:Hello; hang"), "e": scripted_model("echo")}
        ) as server,
        connect_websocket(server) as client,
    ):
        await client.send(op="infer", id="a", model="m", text="hi")
        await client.read_until("a", "chunk")
        for op in ({"op": "infer", "model": "e", "text": "hi"}, {"op": "subscribe", "topics": ["models"]}):
            await client.send(id="a", **op)
            assert "already" in (await client.next_event("a"))["error"]
        assert server.services.streams.running_count == 1
        await client.send(op="cancel", id="x", target="a")
        await client.read_until_complete("a")
        await client.send(op="infer", id="a", model="e", text="hi")
        check_stream(await client.read_until_complete("a"))


@pytest.mark.parametrize("target", ["nobody", 7, "x", None, 1.5, True, ["a"], {"id": "a"}])
@async_test
async def test_cancel_of_unknown_id_is_error(tmp_path: Path, target: Any) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("hang")}) as server,
        connect_websocket(server) as client,
    ):
        for id in ("a", 1):
            await client.send(op="infer", id=id, model="m", text="hi")
        await client.send(op="cancel", id="x", target=target)
        assert (await client.next_event("x"))["code"] == "not_found"
        assert server.services.streams.running_count == 2


GOOD_INFER = {"op": "infer", "id": "a", "model": "m", "text": "hi"}
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"op": "explode"}, "invalid_request", "op"),
    ({"op": ["infer"]}, "invalid_request", "op"),
    ({"op": None}, "invalid_request", "op"),
    ({"op": "infer", "text": "hi"}, "invalid_request", "model"),
    ({"op": "infer", "model": 3, "text": "hi"}, "invalid_request", "model"),
    ({"op": "infer", "model": "m"}, "invalid_request", "text"),
    ({"op": "infer", "model": "m", "text": "hi", "speed": 3}, "invalid_request", "speed"),
    ({"op": "infer", "model": "m", "models": ["m"], "text": "hi"}, "invalid_request", "model"),
    ({"op": "infer", "models": [], "text": "hi"}, "invalid_request", "models"),
    ({"op": "infer", "models": ["m", "m"], "text": "hi"}, "invalid_request", "models"),
    ({"op": "infer", "model": "nobody", "text": "hi"}, "unknown_model", "nobody"),
    ({"op": "infer", "models": ["m", "nobody"], "text": "hi"}, "unknown_model", "nobody"),
    ({"op": "cancel"}, "not_found", "target"),
    ({"op": "cancel", "target": "b", "all": True}, "invalid_request", "all"),
    ({"op": "resume"}, "invalid_request", "stream_id"),
    ({"op": "resume", "stream_id": "nobody"}, "unknown_stream", "stream"),
    ({"op": "resume", "stream_id": 3}, "invalid_request", "stream_id"),
    ({"op": "resume", "stream_id": "x", "after": "1"}, "invalid_request", "after"),
    ({"op": "resume", "stream_id": "x", "after": -2}, "invalid_request", "after"),
    ({"op": "resume", "stream_id": "x", "after": True}, "invalid_request", "after"),
    ({"op": "resume", "stream_id": "x", "until": 3}, "invalid_request", "until"),
]


@pytest.mark.parametrize(("message", "code", "word"), WRONG, ids=lambda value: str(value)[:40])
@async_test
async def test_invalid_message_error_has_id_and_socket_stays_open(
    tmp_path: Path, message: dict[str, Any], code: str, word: str
) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("echo")}) as server,
        connect_websocket(server) as client,
    ):
        await client.send(id="a", **message)
        received = await client.next_event("a")
        assert (received["type"], received["code"]) == ("error", code)
        assert word in received["error"]
        assert not [leak for leak in LEAKS if leak in received["error"]]
        await client.send(**GOOD_INFER)
        check_stream(await client.read_until_complete("a"))


@pytest.mark.parametrize("id", [None, 1.5, True, [], {}, "x" * 201, 10**201])
@async_test
async def test_invalid_message_without_usable_id_gets_error_without_id(tmp_path: Path, id: Any) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("echo")}) as server,
        connect_websocket(server) as client,
    ):
        await client.send(**GOOD_INFER | {"id": id})
        received = await client.next_message()
        assert (received["type"], received["code"], "id" in received) == ("error", "invalid_request", False)
        await client.send(op="infer", model="m", text="hi")
        assert (await client.next_message())["error"].startswith("id:")
        assert server.scripted.calls == 0


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"infer"', "[" * 5000, '{"a":' * 5000, '{"a": NaN}', "\0"])
@async_test
async def test_invalid_json_message_is_error_and_socket_stays_open(tmp_path: Path, text: str) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("echo")}) as server,
        connect_websocket(server) as client,
    ):
        await client.ws.send_str(text)
        assert (await client.next_event())["code"] == "invalid_request"
        await client.send(**GOOD_INFER)
        check_stream(await client.read_until_complete("a"))


@async_test
async def test_invalid_message_error_is_truncated(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("echo")}) as server,
        connect_websocket(server) as client,
    ):
        await client.send(**GOOD_INFER | {"x" * 1_000_000: 1})
        assert len((await client.next_event("a"))["error"]) < 5000
        await client.send(**GOOD_INFER | {"model": "x" * 1_000_000})
        assert len((await client.next_event("a"))["error"]) < 5000
