"""A client that leaves ends the model's call, in every mode, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.async_tests import async_test
from tests.raw_http import RawConnection, json_body, raw_connection, request_head
from tests.running_server import RunningServer, running_server, scripted_model, spin_until, upstream_model
from tests.server.checks import check_stream
from tests.upstream import Upstream, hanging_response, stream_response

PATHS = {
    "plain": ("/api/models/m", {}, 1),
    "stream": ("/api/stream/m", {}, 1),
    "multi": ("/api/multi-inference", {"models": ["m", "m2"]}, 2),
}
EVENTS = {"Accept": "text/event-stream"}


@asynccontextmanager
async def server_with_hanging_upstream(folder: Path, *flags: str) -> AsyncIterator[tuple[RunningServer, Upstream]]:
    """The server, with the models `m` and `m2` whose upstream never answers."""
    async with Upstream() as up:
        up.response = hanging_response()
        async with running_server(
            folder, *flags, models={"m": upstream_model(up.base_url), "m2": upstream_model(up.base_url)}
        ) as server:
            yield server, up


async def check_calls_cancelled(server: RunningServer, up: Upstream, calls: int) -> None:
    await up.wait_until_idle()
    assert up.cancelled == calls
    await server.wait_until_idle()


@pytest.mark.parametrize("mode", PATHS)
@async_test
async def test_disconnect_before_answer_cancels_calls(tmp_path: Path, mode: str) -> None:
    path, fields, calls = PATHS[mode]
    async with server_with_hanging_upstream(tmp_path) as (server, up):
        async with raw_connection(server) as connection:
            body = json_body(**fields)
            await connection.send(request_head(path, length=len(body)) + body)
            await up.wait_for_requests(calls)
        await check_calls_cancelled(server, up, calls)


@pytest.mark.parametrize("mode", PATHS)
@async_test
async def test_disconnect_by_half_close_cancels_call(tmp_path: Path, mode: str) -> None:
    path, fields, calls = PATHS[mode]
    async with server_with_hanging_upstream(tmp_path) as (server, up), raw_connection(server) as connection:
        body = json_body(**fields)
        await connection.send(request_head(path, length=len(body)) + body)
        await up.wait_for_requests(calls)
        connection.writer.write_eof()
        assert await connection.wait_closed() == b""
        await check_calls_cancelled(server, up, calls)


@pytest.mark.parametrize("accept", ["text/event-stream", "application/x-ndjson", "text/plain"])
@async_test
async def test_disconnect_mid_stream_cancels_call(tmp_path: Path, accept: str) -> None:
    async with server_with_hanging_upstream(tmp_path) as (server, up):
        up.response = stream_response(["Hello", asyncio.Event()])
        async with raw_connection(server) as connection:
            body = json_body()
            await connection.send(request_head("/api/stream/m", length=len(body), Accept=accept) + body)
            await connection.reader.readuntil(b"Hello")
        await check_calls_cancelled(server, up, 1)


@async_test
async def test_disconnect_between_heartbeats_cancels_call(tmp_path: Path) -> None:
    async with server_with_hanging_upstream(tmp_path, "--heartbeat", "0.02") as (server, up):
        async with server.open_stream("/api/stream/m", {"text": "hi"}) as live:
            assert [(await live.next_event())["type"] for _ in range(3)] == ["start", "heartbeat", "heartbeat"]
        await check_calls_cancelled(server, up, 1)


@async_test
async def test_disconnect_cancels_only_own_calls(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with server_with_hanging_upstream(tmp_path) as (server, up):
        up.response = stream_response(["Hello", gate, " world"])
        async with server.open_stream("/api/stream/m", {"text": "hi"}) as stays:
            events = [await stays.next_event(), await stays.next_event()]
            async with server.open_stream("/api/stream/m", {"text": "hi"}) as leaves:
                await leaves.next_event()
            await spin_until(lambda: up.cancelled)
            gate.set()
            assert check_stream(events + await stays.remaining_events())["m"]["type"] == "result"
        await check_calls_cancelled(server, up, 1)


@async_test
async def test_disconnect_while_queued_frees_place(tmp_path: Path) -> None:
    models = {"m": scripted_model("hang", concurrency={"calls": 1, "queue": 1}), "echo": scripted_model("echo")}
    async with running_server(tmp_path, models=models) as server:
        async with raw_connection(server) as first, raw_connection(server) as second:
            for connection in (first, second):
                await connection.send(request_head("/api/models/m", length=len(json_body())) + json_body())
            await spin_until(lambda: server.services.streams.running_count == 2)
        await server.wait_until_idle()
        assert server.scripted.open_responses == 0
        async with raw_connection(server) as third:  # the one place is free again: it gets as far as the model
            calls = server.scripted.calls
            await third.send(request_head("/api/models/m", length=len(json_body())) + json_body())
            await spin_until(lambda: server.scripted.calls > calls)
        await server.wait_until_idle()


@async_test
async def test_disconnect_of_hundred_clients_releases_everything(tmp_path: Path) -> None:
    async with server_with_hanging_upstream(tmp_path) as (server, up):
        tasks = len(asyncio.all_tasks())

        async def ask_and_leave() -> None:
            async with raw_connection(server) as connection:
                await connection.send(request_head("/api/stream/m", length=len(json_body())) + json_body())
                await up.wait_for_requests(100)

        await asyncio.gather(*(ask_and_leave() for _ in range(100)))
        await check_calls_cancelled(server, up, 100)
        await spin_until(lambda: len(asyncio.all_tasks()) <= tasks)


@async_test
async def test_disconnect_after_complete_answer_cancels_nothing(tmp_path: Path) -> None:
    async with server_with_hanging_upstream(tmp_path) as (server, up), raw_connection(server) as connection:
        up.response = stream_response(["Hello"])
        await check_complete_answer(connection)
        await check_calls_cancelled(server, up, 0)


async def check_complete_answer(connection: RawConnection) -> None:
    assert (await connection.send_request(json_body(), "/api/models/m")).text == "Hello"
    check_stream((await connection.send_request(json_body(), "/api/stream/m")).events)


@async_test
async def test_disconnect_of_resumable_stream_cancels_after_grace(tmp_path: Path) -> None:
    async with server_with_hanging_upstream(tmp_path, "--grace", "0.1") as (server, up):
        up.response = stream_response(["Hello", asyncio.Event()])
        async with server.open_stream("/api/stream/m", {"text": "hi", "resumable": True}) as live:
            await live.next_event()
            stream = live.response.headers["X-Stream-Id"]
        path = server.url + f"/api/streams/{stream}?after=0"
        async with server.http.get(path) as again:
            assert b"Hello" in await again.content.readuntil(b"\n\n")
            assert up.cancelled == 0
            again.close()
        await check_calls_cancelled(server, up, 1)
