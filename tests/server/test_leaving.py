"""A client that leaves ends the model's call, in every mode, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.aio import asynchronous
from tests.rawhttp import Line, body_of, connected, head
from tests.server.checks import check_stream
from tests.serving import Server, asks, says, serving, until
from tests.upstream import Upstream, hang, stream_of

ADDRESSES = {
    "plain": ("/api/models/m", {}, 1),
    "stream": ("/api/stream/m", {}, 1),
    "multi": ("/api/multi-inference", {"models": ["m", "m2"]}, 2),
}
EVENTS = {"Accept": "text/event-stream"}


@asynccontextmanager
async def hanging(folder: Path, *flags: str) -> AsyncIterator[tuple[Server, Upstream]]:
    """The server, with the models `m` and `m2` whose upstream never answers."""
    async with Upstream() as up:
        up.answer = hang()
        async with serving(folder, *flags, models={"m": asks(up.base_url), "m2": asks(up.base_url)}) as server:
            yield server, up


async def check_gone(server: Server, up: Upstream, calls: int) -> None:
    await up.idle()
    assert up.cancelled == calls
    await server.ended()


@pytest.mark.parametrize("mode", ADDRESSES)
@asynchronous
async def test_a_client_that_closes_while_it_waits_ends_the_calls(tmp_path: Path, mode: str) -> None:
    path, fields, calls = ADDRESSES[mode]
    async with hanging(tmp_path) as (server, up):
        async with connected(server) as line:
            body = body_of(**fields)
            await line.send(head(path, length=len(body)) + body)
            await up.asked(calls)
        await check_gone(server, up, calls)


@pytest.mark.parametrize("mode", ADDRESSES)
@asynchronous
async def test_a_client_that_shuts_its_sending_side_has_left(tmp_path: Path, mode: str) -> None:
    path, fields, calls = ADDRESSES[mode]
    async with hanging(tmp_path) as (server, up), connected(server) as line:
        body = body_of(**fields)
        await line.send(head(path, length=len(body)) + body)
        await up.asked(calls)
        line.writer.write_eof()
        assert await line.closed() == b""
        await check_gone(server, up, calls)


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson", "text/plain"])
@asynchronous
async def test_a_client_that_leaves_in_mid_stream_ends_the_call(tmp_path: Path, accept: str) -> None:
    async with hanging(tmp_path) as (server, up):
        up.answer = stream_of(["Hello", asyncio.Event()])
        async with connected(server) as line:
            body = body_of()
            await line.send(head("/api/stream/m", length=len(body), Accept=accept) + body)
            await line.reader.readuntil(b"Hello")
        await check_gone(server, up, 1)


@asynchronous
async def test_a_client_that_leaves_between_heartbeats_ends_the_call(tmp_path: Path) -> None:
    async with hanging(tmp_path, "--heartbeat", "0.02") as (server, up):
        async with server.live("/api/stream/m", {"text": "hi"}) as live:
            assert [(await live.next())["type"] for _ in range(3)] == ["start", "heartbeat", "heartbeat"]
        await check_gone(server, up, 1)


@asynchronous
async def test_a_client_that_leaves_ends_no_call_but_its_own(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with hanging(tmp_path) as (server, up):
        up.answer = stream_of(["Hello", gate, " world"])
        async with server.live("/api/stream/m", {"text": "hi"}) as stays:
            events = [await stays.next(), await stays.next()]
            async with server.live("/api/stream/m", {"text": "hi"}) as leaves:
                await leaves.next()
            await until(lambda: up.cancelled)
            gate.set()
            assert check_stream(events + await stays.rest())["m"]["type"] == "result"
        await check_gone(server, up, 1)


@asynchronous
async def test_who_waits_in_a_models_queue_and_leaves_gives_the_place_free(tmp_path: Path) -> None:
    models = {"m": says("hang", concurrency={"calls": 1, "queue": 1}), "echo": says("echo")}
    async with serving(tmp_path, models=models) as server:
        async with connected(server) as first, connected(server) as second:
            for line in (first, second):
                await line.send(head("/api/models/m", length=len(body_of())) + body_of())
            await until(lambda: server.services.streams.running == 2)
        await server.ended()
        assert server.scripted.replies == 0
        async with connected(server) as third:  # the one place is free again: it gets as far as the model
            calls = server.scripted.calls
            await third.send(head("/api/models/m", length=len(body_of())) + body_of())
            await until(lambda: server.scripted.calls > calls)
        await server.ended()


@asynchronous
async def test_a_hundred_clients_that_leave_leave_nothing(tmp_path: Path) -> None:
    async with hanging(tmp_path) as (server, up):
        tasks = len(asyncio.all_tasks())

        async def ask_and_leave() -> None:
            async with connected(server) as line:
                await line.send(head("/api/stream/m", length=len(body_of())) + body_of())
                await up.asked(100)

        await asyncio.gather(*(ask_and_leave() for _ in range(100)))
        await check_gone(server, up, 100)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)


@asynchronous
async def test_an_answer_that_is_whole_cancels_nothing(tmp_path: Path) -> None:
    async with hanging(tmp_path) as (server, up), connected(server) as line:
        up.answer = stream_of(["Hello"])
        await check_whole(line)
        await check_gone(server, up, 0)


async def check_whole(line: Line) -> None:
    assert (await line.ask(body_of(), "/api/models/m")).text == "Hello"
    check_stream((await line.ask(body_of(), "/api/stream/m")).events)


@asynchronous
async def test_a_resumable_stream_goes_on_for_its_grace_and_no_longer(tmp_path: Path) -> None:
    async with hanging(tmp_path, "--grace", "0.1") as (server, up):
        up.answer = stream_of(["Hello", asyncio.Event()])
        async with server.live("/api/stream/m", {"text": "hi", "resumable": True}) as live:
            await live.next()
            stream = live.response.headers["X-Stream-Id"]
        path = server.url + f"/api/streams/{stream}?after=0"
        async with server.http.get(path) as again:
            assert b"Hello" in await again.content.readuntil(b"\n\n")
            assert up.cancelled == 0
            again.close()
        await check_gone(server, up, 1)
