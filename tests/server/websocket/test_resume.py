"""`resume` on /ws: streams that are read again, by several, from any event on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.async_tests import async_test, wait_until
from tests.running_server import running_server, scripted_model, upstream_model
from tests.server.checks import check_stream, text_of
from tests.sockets import JSON, MSGPACK, WebSocketClient, connect_websocket
from tests.upstream import Upstream, stream_response

RESUMABLE = {"op": "infer", "id": "a", "model": "m", "text": "hi", "resumable": True}


async def read_events(client: WebSocketClient, id: str, count: int) -> list[dict[str, Any]]:
    return [await client.next_event(id) for _ in range(count)]


@pytest.mark.parametrize("protocol", [JSON, MSGPACK])
@pytest.mark.parametrize("count", range(1, 7))
@async_test
async def test_resume_after_any_event_yields_same_stream(tmp_path: Path, count: int, protocol: str) -> None:
    gates = [asyncio.Event() for _ in range(4)]
    async with Upstream() as up, running_server(tmp_path, models={"m": upstream_model(up.base_url)}) as server:
        up.response = stream_response([piece for n in range(4) for piece in (f"word{n} ", gates[n])])
        async with connect_websocket(server) as uncut:
            async with connect_websocket(server, protocols=(protocol,)) as first:
                await first.send(**RESUMABLE)
                mine = await read_events(first, "a", 2)
                await uncut.send(op="resume", id="u", stream_id=mine[0]["stream_id"])
                for gate in gates[: count - 2 if count > 2 else 0]:
                    gate.set()
                mine = (mine + await read_events(first, "a", count - len(mine)))[:count] if count > 2 else mine[:count]
            for gate in gates:
                gate.set()
            async with connect_websocket(server, protocols=(protocol,)) as second:
                await second.send(op="resume", id="b", stream_id=mine[0]["stream_id"], after=mine[-1]["seq"])
                mine += await second.read_until_complete("b")
            assert mine == await uncut.read_until_complete("u")
            assert text_of(check_stream(mine)["m"]) == "word0 word1 word2 word3 "


@async_test
async def test_resume_of_finished_stream_after_each_event(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("say:a b c d e")}) as server,
        connect_websocket(server) as client,
    ):
        await client.send(op="infer", id="a", model="m", text="hi")
        events = await client.read_until_complete("a")
        for after in range(-1, len(events) - 1):
            await client.send(op="resume", id="b", stream_id=events[0]["stream_id"], after=after)
            assert await client.read_until_complete("b") == events[after + 1 :]


@async_test
async def test_resume_beyond_last_event_is_error(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("say:Hello; hang")}) as server,
        connect_websocket(server) as client,
    ):
        await client.send(op="infer", id="a", model="m", text="hi")
        start, chunk = await client.read_until("a", "chunk")
        for after in (2, 3, 10**30):
            await client.send(op="resume", id="b", stream_id=start["stream_id"], after=after)
            message = await client.next_event("b")
            assert (message["code"], "2 events" in message["error"]) == ("invalid_request", True)
        await client.send(op="resume", id="b", stream_id=start["stream_id"], after=0)
        assert await client.next_event("b") == chunk


@async_test
async def test_resume_of_own_stream_on_same_socket(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("say:a b c")}) as server,
        connect_websocket(server) as client,
    ):
        await client.send(op="infer", id="a", model="m", text="hi")
        start = await client.next_event("a")
        for id in ("b", "c"):
            await client.send(op="resume", id=id, stream_id=start["stream_id"])
        assert (
            [start, *await client.read_until_complete("a")]
            == await client.read_until_complete("b")
            == await client.read_until_complete("c")
        )


@async_test
async def test_resume_across_http_and_websocket(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        Upstream() as up,
        running_server(tmp_path, models={"m": upstream_model(up.base_url)}) as server,
        connect_websocket(server) as client,
    ):
        up.response = stream_response(["Hello", gate, " world"])
        async with server.open_stream("/api/stream/m", {"text": "hi", "resumable": True}) as live:
            events = [await live.next_event(), await live.next_event()]
        await client.send(op="resume", id="a", stream_id=events[0]["stream_id"], after=1)
        await client.send(**RESUMABLE | {"id": "b"})
        other = await client.read_until("b", "chunk")
        gate.set()
        assert text_of(check_stream(events + await client.read_until_complete("a"))["m"]) == "Hello world"
        again = await server.get(f"/api/streams/{other[0]['stream_id']}?after=0")
        assert again.events == other[1:] + await client.read_until_complete("b")


@async_test
async def test_resume_reader_keeps_stream_running_after_first_disconnects(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        Upstream() as up,
        running_server(tmp_path, models={"m": upstream_model(up.base_url)}) as server,
        connect_websocket(server) as other,
    ):
        up.response = stream_response(["Hello", gate, " world"])
        async with connect_websocket(server) as first:
            await first.send(op="infer", id="a", model="m", text="hi")
            start, _ = await first.read_until("a", "chunk")
            await other.send(op="resume", id="b", stream_id=start["stream_id"])
            events = await other.read_until("b", "chunk")
        await wait_until(lambda: len(server.services.websockets) == 1)
        gate.set()
        assert text_of(check_stream(events + await other.read_until_complete("b"))["m"]) == "Hello world"
        assert up.cancelled == 0
