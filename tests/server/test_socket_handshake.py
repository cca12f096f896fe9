"""How a socket on /ws begins and ends: handshakes, subprotocols, keys, limits, pings and shutdown."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgpack
import pytest
import websockets

from server import app
from tests.aio import asynchronous, comes_true
from tests.rawhttp import connected
from tests.server.checks import check_error, check_stream
from tests.serving import asks, says, serving
from tests.sockets import (
    CLOSE,
    JSON,
    MSGPACK,
    PING,
    TEXT,
    Talk,
    dial,
    frame,
    handshake,
    raw_socket,
    talking,
)
from tests.upstream import Upstream, stream_of

INFER = {"op": "infer", "id": "a", "model": "m", "text": "hi"}
ECHO = {"m": says("echo")}
INFER_FRAME = frame(TEXT, json.dumps(INFER).encode())


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ([], None),
        ([JSON], JSON),
        ([MSGPACK], MSGPACK),
        (["nobody.v9", MSGPACK, JSON], MSGPACK),
        (["nobody.v9"], None),
        (["forgeline.key.eA", JSON], JSON),
    ],
)
@asynchronous
async def test_the_first_subprotocol_that_is_known_is_chosen_and_json_without_one(
    tmp_path: Path, offered: list[str], chosen: str | None
) -> None:
    async with serving(tmp_path, models=ECHO) as server, dial(server, *offered) as ws:
        assert ws.subprotocol == chosen
        packed = chosen == MSGPACK
        await ws.send(msgpack.packb(INFER) if packed else json.dumps(INFER))
        told: list[dict[str, Any]] = []
        while not told or told[-1]["type"] != "complete":
            message = await ws.recv()
            assert isinstance(message, bytes) == packed
            told.append(msgpack.unpackb(message) if isinstance(message, bytes) else json.loads(message))
        check_stream(told)


@pytest.mark.parametrize("key", ["one", "zwei/ünï+\U0001f525", "x" * 300])
@asynchronous
async def test_a_key_may_come_as_a_subprotocol(tmp_path: Path, key: str) -> None:
    encoded = urlsafe_b64encode(key.encode()).decode().rstrip("=")
    async with (
        serving(tmp_path, environ={"FORGELINE_API_KEYS": f"other,{key}"}, models=ECHO) as server,
        dial(server, JSON, f"forgeline.key.{encoded}") as ws,
    ):
        assert ws.subprotocol == JSON
        await ws.send(json.dumps(INFER))
        assert json.loads(await ws.recv())["type"] == "start"


@pytest.mark.parametrize("offered", ["", *(f"forgeline.key.{end}" for end in ("d3Jvbmc", "!", "", "_w"))])
@asynchronous
async def test_without_a_right_key_there_is_no_socket(tmp_path: Path, offered: str) -> None:
    async with serving(tmp_path, environ={"FORGELINE_API_KEYS": "one"}, models=ECHO) as server:
        async with connected(server) as line:
            await line.send(handshake(headers={"Sec-WebSocket-Protocol": offered}))
            check_error(await line.answer(), 401, "unauthorized")
        async with dial(server, additional_headers={"Authorization": "Bearer one"}) as ws:
            await ws.send(json.dumps(INFER))
            assert json.loads(await ws.recv())["type"] == "start"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Origin": "null"}, 403, "forbidden"),
        ({"Origin": "http://evil.example"}, 403, "forbidden"),
        ({"Origin": "http://localhost:9"}, 403, "forbidden"),
        ({"Host": "rebound.example"}, 403, "forbidden"),
        ({"Host": "rebound.example", "Origin": "http://rebound.example"}, 403, "forbidden"),
        ({"Upgrade": ""}, 400, "invalid_request"),
        ({"Upgrade": "h2c"}, 400, "invalid_request"),
        ({"Connection": ""}, 400, "invalid_request"),
        ({"Connection": "keep-alive"}, 400, "invalid_request"),
        ({"Sec-WebSocket-Key": ""}, 400, "invalid_request"),
        ({"Sec-WebSocket-Version": ""}, 400, "invalid_request"),
        ({"Sec-WebSocket-Version": "8"}, 400, "invalid_request"),
        ({"Content-Length": "5"}, 400, "invalid_request"),
        ({"Transfer-Encoding": "chunked"}, 400, "invalid_request"),
    ],
)
@pytest.mark.parametrize("path", ["/ws", "/ws/stream/m"])
@asynchronous
async def test_a_handshake_that_is_refused_is_answered_like_any_request(
    tmp_path: Path, path: str, headers: Mapping[str, str], status: int, code: str
) -> None:
    async with serving(tmp_path, models=ECHO) as server, connected(server) as line:
        await line.send(handshake(path, headers))
        check_error(await line.answer(), status, code)
        assert not server.services.sockets


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@asynchronous
async def test_other_methods_are_405_whatever_they_bring(tmp_path: Path, method: str) -> None:
    async with serving(tmp_path) as server, connected(server) as line:
        check_error(await server.request(method, "/ws"), 405, "method_not_allowed")
        await line.send(f"{method} /ws HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\nx".encode())
        check_error(await line.answer(), 405, "method_not_allowed")


@asynchronous
async def test_an_origin_of_the_server_itself_or_a_listed_one_may_come(tmp_path: Path) -> None:
    async with serving(tmp_path, "--allow-origin", "http://app.example", models=ECHO) as server:
        for origin in (server.url, "http://app.example"):
            async with dial(server, origin=origin) as ws:
                await ws.send(json.dumps(INFER))
                assert json.loads(await ws.recv())["type"] == "start"


@asynchronous
async def test_at_the_limit_of_sockets_the_next_closes_with_1013(tmp_path: Path) -> None:
    async with serving(tmp_path, "--max-sockets", "2", models=ECHO) as server:
        async with dial(server), dial(server) as second:
            async with dial(server) as third:
                with pytest.raises(websockets.ConnectionClosed):
                    await third.recv()
                assert third.close_code == 1013
            await second.send(json.dumps(INFER))
            assert json.loads(await second.recv())["type"] == "start"
        await comes_true(lambda: not server.services.sockets)
        async with dial(server) as again:
            await again.send(json.dumps(INFER))
            assert json.loads(await again.recv())["type"] == "start"


@asynchronous
async def test_shutdown_ends_streams_and_closes_with_1001(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with AsyncExitStack() as stack:
        up = await stack.enter_async_context(Upstream())
        up.answer = stream_of(["Hello", gate])
        server_stack = AsyncExitStack()
        models = {"m": asks(up.base_url)}
        server = await server_stack.enter_async_context(serving(tmp_path, "--drain", "0.1", models=models))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        ws = await http.ws_connect(server.url + "/ws")
        idle = await stack.enter_async_context(dial(server))
        await ws.send_json(INFER)
        events = [await ws.receive_json() for _ in range(2)]
        await server_stack.aclose()
        while (message := await ws.receive()).type == aiohttp.WSMsgType.TEXT:
            events.append(message.json())
        assert check_stream(events)["m"]["code"] == "unavailable"
        assert ws.close_code == 1001
        with pytest.raises(websockets.ConnectionClosed):
            await idle.recv()
        assert (idle.close_code, idle.close_reason) == (1001, "the server is shutting down")
        await up.idle()


def beating(talk: Talk) -> bool:
    return talk.heartbeats > 3


@asynchronous
async def test_one_heartbeat_for_the_socket_bridges_its_silence(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, "--heartbeat", "0.02", models={"m": says("hang")}) as server,
        talking(server) as talk,
        talking(server, protocols=(MSGPACK,)) as packed,
    ):
        for one in (talk, packed):
            for id in range(3):
                await one.say(**INFER | {"id": id})
            for id in range(3):
                await one.next(id)
            reading = asyncio.create_task(one.any())
            await comes_true(partial(beating, one))
            reading.cancel()


@asynchronous
async def test_a_peer_that_answers_no_ping_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "PING_SECONDS", 0.1)
    async with (
        serving(tmp_path, models={"m": says("hang")}) as server,
        dial(server) as lively,
        raw_socket(server) as dead,
    ):
        await dead.send(INFER_FRAME)
        opcodes: list[int] = []
        while not opcodes or opcodes[-1] != CLOSE:
            opcodes.append((await dead.frame())[0])
        assert opcodes == [TEXT, PING, CLOSE]
        await lively.send(json.dumps(INFER))
        assert json.loads(await lively.recv())["type"] == "start"
