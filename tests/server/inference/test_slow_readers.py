"""Clients that read nothing: they are cut, what they cost is bounded, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import cast

import pytest
from tornado.websocket import WebSocketProtocol13

from pipeline.events import log as event_log
from pipeline.streams import Stream
from server.handlers.socket import SocketHandler
from tests.async_tests import async_test, slow_async_test, wait_until
from tests.raw_http import json_body, request_head
from tests.running_server import RunningServer, running_server, scripted_model, upstream_model
from tests.server.checks import check_stream
from tests.sockets import PING, TEXT, RawSocket, connect_websocket, frame, open_raw_connection, open_raw_websocket
from tests.upstream import Upstream, stream_response

LAG = 20_000  # bytes, in place of the million that the tests would have to fill each time


@pytest.fixture(autouse=True)
def _short_lag_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "MAX_LAG", LAG)
    monkeypatch.setattr(event_log, "LAG_TIMEOUT", 0.2)


def count_unwritten_bytes(server: RunningServer) -> int:
    """Bytes that wait in the server for clients of sockets to take them."""
    connections = [cast(SocketHandler, handler).ws_connection for handler in server.services.websockets]
    return sum(len(cast(WebSocketProtocol13, connection).stream._write_buffer) for connection in connections)


async def wait_for_stream(server: RunningServer) -> Stream:
    """The stream that runs, once there is one."""
    await wait_until(lambda: server.services.streams._running)
    (stream,) = server.services.streams._running
    return stream


@slow_async_test
async def test_slow_reader_on_websocket_is_aborted_and_resumes(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("chunks:200000")}) as server,
        open_raw_websocket(server) as line,
    ):
        await line.send_message(op="infer", id="a", model="m", text="hi", resumable=True)
        start = await line.read_message()
        await server.wait_until_idle()  # the model has said all: nobody waits for this reader any more
        assert count_unwritten_bytes(server) < 1_000_000
        received = [start]
        while received[-1]["type"] == "chunk" or len(received) == 1:
            received.append(await line.read_message())
        cut = received.pop()
        assert cut.keys() == {"id", "type", "error", "code"}
        assert (cut["type"], cut["code"]) == ("error", "slow_reader")
        assert len(received) < 200_000
        await line.send_message(op="resume", id="a", stream_id=start["stream_id"], after=received[-1]["seq"])
        while received[-1]["type"] != "complete":
            received.append(await line.read_message())
        check_stream(received)


@async_test
async def test_slow_reader_error_is_last_message_of_operation(tmp_path: Path) -> None:
    models = {"m": scripted_model("chunks:100000"), "e": scripted_model("echo")}
    async with running_server(tmp_path, models=models) as server, open_raw_websocket(server) as line:
        await line.send_message(op="infer", id="a", model="m", text="hi")
        await wait_until(lambda: server.scripted.calls)
        await server.wait_until_idle()
        await line.send_message(op="infer", id="b", model="e", text="hi")
        kinds: list[tuple[str, str]] = []
        while not kinds or kinds[-1] != ("b", "complete"):
            message = await line.read_message()
            kinds.append((message["id"], message["type"]))
        of_a = [kind for id, kind in kinds if id == "a"]
        assert set(of_a[1:-1]) == {"chunk"}
        assert of_a[-1] == "error"


@async_test
async def test_slow_reader_does_not_delay_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "LAG_TIMEOUT", 8.0)
    models = {"m": scripted_model("chunks:1000000"), "e": scripted_model("chunks:300")}
    async with running_server(tmp_path, models=models) as server, open_raw_websocket(server) as line:
        await line.send_message(op="infer", id="a", model="m", text="hi")
        stream = await wait_for_stream(server)
        await wait_until(lambda: stream.log.has_lagging_cursor)
        received = len(stream.log.records)
        async with connect_websocket(server) as client:
            for number in range(100):
                await client.send(op="infer", id=number, model="e", text="hi")
            for number in range(100):
                check_stream(await client.read_until_complete(number))
        check_stream((await server.post("/api/stream/e", {"text": "hi"})).events)
        assert len(stream.log.records) == received  # all that time the slow one's own stream stood still
        assert server.services.streams.running_count == 1
        assert count_unwritten_bytes(server) < 1_000_000


@slow_async_test
async def test_slow_reader_alone_is_aborted(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("chunks:100000")}) as server,
        connect_websocket(server) as quick,
        open_raw_websocket(server) as line,
    ):
        await quick.send(op="infer", id="a", model="m", text="hi")
        events = [await quick.next_event("a")]
        await line.send_message(op="resume", id="b", stream_id=events[0]["stream_id"])
        check_stream(events + await quick.read_until_complete("a"))
        kinds: list[str] = []
        while not kinds or kinds[-1] == "chunk" or len(kinds) == 1:
            kinds.append((await line.read_message())["type"])
        assert kinds[-1] == "error"
        assert len(kinds) < 100_000


@async_test
async def test_slow_reader_abort_counts_as_disconnect(tmp_path: Path) -> None:
    async with Upstream() as up, running_server(tmp_path, models={"m": upstream_model(up.base_url)}) as server:
        up.response = stream_response([*["x" * 10_000] * 1000, asyncio.Event()])
        async with open_raw_websocket(server) as line:
            await line.send_message(op="infer", id="a", model="m", text="hi")
            await up.wait_for_requests()
            await up.wait_until_idle()
        await server.wait_until_idle()
        assert up.cancelled == 1


@slow_async_test
async def test_slow_reader_over_http_is_aborted_and_resumes(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("chunks:200000")}) as server,
        open_raw_connection(server) as line,
    ):
        body = json_body(resumable=True)
        await line.send(request_head("/api/stream/m", length=len(body), Accept="application/x-ndjson") + body)
        stream = await wait_for_stream(server)
        await server.wait_until_idle()
        content = await line.read_to_end()
        assert not content.endswith(b"0\r\n\r\n")
        received = [
            json.loads(part) for part in content.split(b"\n") if part.startswith(b'{"type"') and part[-1:] == b"}"
        ]
        assert [event["seq"] for event in received] == list(range(len(received)))
        assert all(event["type"] in ("start", "chunk") for event in received)
        rest = await server.get(f"/api/streams/{stream.id}?after={len(received) - 1}")
        check_stream(received + rest.events)


@slow_async_test
async def test_large_events_reach_reading_client(tmp_path: Path) -> None:
    async with (
        Upstream() as up,
        running_server(tmp_path, models={"m": upstream_model(up.base_url)}) as server,
        connect_websocket(server) as client,
    ):
        up.response = stream_response(["x" * 20_000] * 1500)
        events = (await server.post("/api/stream/m", {"text": "hi", "resumable": True})).events
        await client.send(op="resume", id="a", stream_id=events[0]["stream_id"])
        assert await client.read_until_complete("a") == events


async def flood(line: RawSocket, data: bytes, *, megabytes: int) -> bool:
    """Whether the server took in so much."""
    block = data * (1_000_000 // len(data))
    try:
        async with asyncio.timeout(0.5):
            for _ in range(megabytes):
                await line.send(block)
    except (TimeoutError, ConnectionError):
        return False
    return True


@async_test
async def test_ping_flood_is_answered(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("echo")}) as server,
        open_raw_websocket(server) as line,
    ):
        await line.send(frame(PING, b"first") + frame(PING, b"again") * 10_000 + frame(PING, b"last"))
        pongs = [await line.read_frame()]
        while pongs[-1][1] != b"last":
            pongs.append(await line.read_frame())
        assert {opcode for opcode, _ in pongs} == {10}
        await line.send_message(op="infer", id="a", model="m", text="hi")
        assert (await line.read_message())["type"] == "start"


@async_test
async def test_ping_flood_without_reading_uses_bounded_memory(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_raw_websocket(server) as line:
        await flood(line, frame(PING, b"x" * 125), megabytes=30)
        assert count_unwritten_bytes(server) < 20_000_000
        assert (await server.get("/healthz")).status == 200


@async_test
async def test_error_flood_without_reading_uses_bounded_memory(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server, open_raw_websocket(server) as line:
        wrong = {"op": "infer", "id": "x" * 200, "model": "x" * 3000, "text": "hi"}
        assert not await flood(line, frame(TEXT, json.dumps(wrong).encode()), megabytes=50)
        assert len(asyncio.all_tasks()) < 2000
        assert count_unwritten_bytes(server) < 1_000_000
        assert (await server.get("/healthz")).status == 200


@async_test
async def test_cancel_flood_without_reading_uses_bounded_memory(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("chunks:4000")}) as server,
        connect_websocket(server) as client,
    ):
        await client.send(op="infer", id="a", model="m", text="hi")
        start = (await client.read_until_complete("a"))[0]
        async with open_raw_websocket(server) as line:
            for number in range(100):
                await line.send_message(op="resume", id=number, stream_id=start["stream_id"])
            for number in range(100):
                await line.send_message(op="cancel", id="c", target=number)
                assert (await server.get("/healthz")).status == 200
            assert count_unwritten_bytes(server) < 1_000_000
