"""Clients that read nothing: they are cut, what they cost is bounded, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import cast

import pytest
from tornado.websocket import WebSocketProtocol13

from pipeline import eventlog
from pipeline.streams import Stream
from server.handlers.socket import SocketHandler
from tests.aio import asynchronous, comes_true
from tests.rawhttp import body_of, head
from tests.server.checks import check_stream
from tests.serving import Server, asks, says, serving
from tests.sockets import PING, TEXT, RawSocket, frame, raw_line, raw_socket, talking
from tests.upstream import Upstream, stream_of

LAG = 20_000  # bytes, in place of the million that the tests would have to fill each time


@pytest.fixture(autouse=True)
def _little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "MAX_LAG", LAG)
    monkeypatch.setattr(eventlog, "PATIENCE", 0.2)


def unwritten(server: Server) -> int:
    """Bytes that wait in the server for clients of sockets to take them."""
    connections = [cast(SocketHandler, handler).ws_connection for handler in server.services.sockets]
    return sum(len(cast(WebSocketProtocol13, connection).stream._write_buffer) for connection in connections)


async def begun(server: Server) -> Stream:
    """The stream that runs, once there is one."""
    await comes_true(lambda: server.services.streams._running)
    (stream,) = server.services.streams._running
    return stream


@asynchronous
async def test_a_socket_that_reads_nothing_is_cut_and_resumes_without_a_loss(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("chunks:200000")}) as server, raw_socket(server) as line:
        await line.say(op="infer", id="a", model="m", text="hi", resumable=True)
        start = await line.message()
        await server.ended()  # the model has said all: nobody waits for this reader any more
        assert unwritten(server) < 1_000_000
        told = [start]
        while told[-1]["type"] == "chunk" or len(told) == 1:
            told.append(await line.message())
        cut = told.pop()
        assert cut.keys() == {"id", "type", "error", "code"}
        assert (cut["type"], cut["code"]) == ("error", "slow_reader")
        assert len(told) < 200_000
        await line.say(op="resume", id="a", stream_id=start["stream_id"], after=told[-1]["seq"])
        while told[-1]["type"] != "complete":
            told.append(await line.message())
        check_stream(told)


@asynchronous
async def test_nothing_comes_after_slow_reader_and_the_socket_goes_on(tmp_path: Path) -> None:
    models = {"m": says("chunks:100000"), "e": says("echo")}
    async with serving(tmp_path, models=models) as server, raw_socket(server) as line:
        await line.say(op="infer", id="a", model="m", text="hi")
        await comes_true(lambda: server.scripted.calls)
        await server.ended()
        await line.say(op="infer", id="b", model="e", text="hi")
        kinds: list[tuple[str, str]] = []
        while not kinds or kinds[-1] != ("b", "complete"):
            message = await line.message()
            kinds.append((message["id"], message["type"]))
        of_a = [kind for id, kind in kinds if id == "a"]
        assert set(of_a[1:-1]) == {"chunk"}
        assert of_a[-1] == "error"


@asynchronous
async def test_a_reader_that_does_not_read_slows_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "PATIENCE", 8.0)
    models = {"m": says("chunks:1000000"), "e": says("chunks:300")}
    async with serving(tmp_path, models=models) as server, raw_socket(server) as line:
        await line.say(op="infer", id="a", model="m", text="hi")
        stream = await begun(server)
        await comes_true(lambda: stream.log.crowded)
        told = len(stream.log.records)
        async with talking(server) as talk:
            for number in range(100):
                await talk.say(op="infer", id=number, model="e", text="hi")
            for number in range(100):
                check_stream(await talk.whole(number))
        check_stream((await server.post("/api/stream/e", {"text": "hi"})).events)
        assert len(stream.log.records) == told  # all that time the slow one's own stream stood still
        assert server.services.streams.running == 1
        assert unwritten(server) < 1_000_000


@asynchronous
async def test_of_two_readers_of_one_stream_only_the_slow_one_is_cut(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, models={"m": says("chunks:100000")}) as server,
        talking(server) as quick,
        raw_socket(server) as line,
    ):
        await quick.say(op="infer", id="a", model="m", text="hi")
        events = [await quick.next("a")]
        await line.say(op="resume", id="b", stream_id=events[0]["stream_id"])
        check_stream(events + await quick.whole("a"))
        kinds: list[str] = []
        while not kinds or kinds[-1] == "chunk" or len(kinds) == 1:
            kinds.append((await line.message())["type"])
        assert kinds[-1] == "error"
        assert len(kinds) < 100_000


@asynchronous
async def test_a_slow_reader_counts_as_having_left(tmp_path: Path) -> None:
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server:
        up.answer = stream_of([*["x" * 10_000] * 1000, asyncio.Event()])
        async with raw_socket(server) as line:
            await line.say(op="infer", id="a", model="m", text="hi")
            await up.asked()
            await up.idle()
        await server.ended()
        assert up.cancelled == 1


@asynchronous
async def test_over_http_a_slow_readers_connection_is_cut_and_it_resumes(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("chunks:200000")}) as server, raw_line(server) as line:
        body = body_of(resumable=True)
        await line.send(head("/api/stream/m", length=len(body), Accept="application/x-ndjson") + body)
        stream = await begun(server)
        await server.ended()
        content = await line.rest()
        assert not content.endswith(b"0\r\n\r\n")
        told = [json.loads(part) for part in content.split(b"\n") if part.startswith(b'{"type"') and part[-1:] == b"}"]
        assert [event["seq"] for event in told] == list(range(len(told)))
        assert all(event["type"] in ("start", "chunk") for event in told)
        rest = await server.get(f"/api/streams/{stream.id}?after={len(told) - 1}")
        check_stream(told + rest.events)


@asynchronous
async def test_large_events_are_told_to_a_reader_that_reads(tmp_path: Path) -> None:
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server, talking(server) as talk:
        up.answer = stream_of(["x" * 20_000] * 1500)
        events = (await server.post("/api/stream/m", {"text": "hi", "resumable": True})).events
        await talk.say(op="resume", id="a", stream_id=events[0]["stream_id"])
        assert await talk.whole("a") == events


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


@asynchronous
async def test_a_flood_of_pings_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server, raw_socket(server) as line:
        await line.send(frame(PING, b"first") + frame(PING, b"again") * 10_000 + frame(PING, b"last"))
        pongs = [await line.frame()]
        while pongs[-1][1] != b"last":
            pongs.append(await line.frame())
        assert {opcode for opcode, _ in pongs} == {10}
        await line.say(op="infer", id="a", model="m", text="hi")
        assert (await line.message())["type"] == "start"


@asynchronous
async def test_who_floods_with_pings_and_reads_nothing_fills_no_memory(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, raw_socket(server) as line:
        await flood(line, frame(PING, b"x" * 125), megabytes=30)
        assert unwritten(server) < 20_000_000
        assert (await server.get("/healthz")).status == 200


@asynchronous
async def test_who_floods_with_errors_and_reads_nothing_fills_no_memory(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, raw_socket(server) as line:
        wrong = {"op": "infer", "id": "x" * 200, "model": "x" * 3000, "text": "hi"}
        assert not await flood(line, frame(TEXT, json.dumps(wrong).encode()), megabytes=50)
        assert len(asyncio.all_tasks()) < 2000
        assert unwritten(server) < 1_000_000
        assert (await server.get("/healthz")).status == 200


@asynchronous
async def test_who_begins_and_cancels_without_reading_fills_no_memory(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("chunks:4000")}) as server, talking(server) as talk:
        await talk.say(op="infer", id="a", model="m", text="hi")
        start = (await talk.whole("a"))[0]
        async with raw_socket(server) as line:
            for number in range(100):
                await line.say(op="resume", id=number, stream_id=start["stream_id"])
            for number in range(100):
                await line.say(op="cancel", id="c", target=number)
                assert (await server.get("/healthz")).status == 200
            assert unwritten(server) < 1_000_000
