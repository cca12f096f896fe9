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
from tests.async_tests import async_test, wait_until
from tests.raw_http import raw_connection
from tests.running_server import running_server, scripted_model, upstream_model
from tests.server.checks import check_error, check_stream
from tests.sockets import (
    CLOSE,
    JSON,
    MSGPACK,
    PING,
    TEXT,
    WebSocketClient,
    connect_websocket,
    connect_with_websockets,
    frame,
    handshake_request,
    open_raw_websocket,
)
from tests.upstream import Upstream, stream_response

INFER = {"op": "infer", "id": "a", "model": "m", "text": "hi"}
ECHO = {"m": scripted_model("echo")}
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
@async_test
async def test_handshake_selects_first_known_subprotocol(
    tmp_path: Path, offered: list[str], chosen: str | None
) -> None:
    async with running_server(tmp_path, models=ECHO) as server, connect_with_websockets(server, *offered) as ws:
        assert ws.subprotocol == chosen
        packed = chosen == MSGPACK
        await ws.send(msgpack.packb(INFER) if packed else json.dumps(INFER))
        messages: list[dict[str, Any]] = []
        while not messages or messages[-1]["type"] != "complete":
            message = await ws.recv()
            assert isinstance(message, bytes) == packed
            messages.append(msgpack.unpackb(message) if isinstance(message, bytes) else json.loads(message))
        check_stream(messages)


@pytest.mark.parametrize("key", ["one", "zwei/ünï+\U0001f525", "x" * 300])
@async_test
async def test_handshake_accepts_api_key_in_subprotocol(tmp_path: Path, key: str) -> None:
    encoded = urlsafe_b64encode(key.encode()).decode().rstrip("=")
    async with (
        running_server(tmp_path, environ={"FORGELINE_API_KEYS": f"other,{key}"}, models=ECHO) as server,
        connect_with_websockets(server, JSON, f"forgeline.key.{encoded}") as ws,
    ):
        assert ws.subprotocol == JSON
        await ws.send(json.dumps(INFER))
        assert json.loads(await ws.recv())["type"] == "start"


@pytest.mark.parametrize("offered", ["", *(f"forgeline.key.{end}" for end in ("d3Jvbmc", "!", "", "_w"))])
@async_test
async def test_handshake_without_valid_api_key_is_401(tmp_path: Path, offered: str) -> None:
    async with running_server(tmp_path, environ={"FORGELINE_API_KEYS": "one"}, models=ECHO) as server:
        async with raw_connection(server) as connection:
            await connection.send(handshake_request(headers={"Sec-WebSocket-Protocol": offered}))
            check_error(await connection.read_response(), 401, "unauthorized")
        async with connect_with_websockets(server, additional_headers={"Authorization": "Bearer one"}) as ws:
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
@async_test
async def test_handshake_rejection_is_http_error(
    tmp_path: Path, path: str, headers: Mapping[str, str], status: int, code: str
) -> None:
    async with running_server(tmp_path, models=ECHO) as server, raw_connection(server) as connection:
        await connection.send(handshake_request(path, headers))
        check_error(await connection.read_response(), status, code)
        assert not server.services.websockets


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@async_test
async def test_handshake_with_other_method_is_405(tmp_path: Path, method: str) -> None:
    async with running_server(tmp_path) as server, raw_connection(server) as connection:
        check_error(await server.request(method, "/ws"), 405, "method_not_allowed")
        await connection.send(
            f"{method} /ws HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\nx".encode()
        )
        check_error(await connection.read_response(), 405, "method_not_allowed")


@async_test
async def test_handshake_checks_origin(tmp_path: Path) -> None:
    async with running_server(tmp_path, "--allow-origin", "http://app.example", models=ECHO) as server:
        for origin in (server.url, "http://app.example"):
            async with connect_with_websockets(server, origin=origin) as ws:
                await ws.send(json.dumps(INFER))
                assert json.loads(await ws.recv())["type"] == "start"


@async_test
async def test_websocket_limit_closes_next_with_1013(tmp_path: Path) -> None:
    async with running_server(tmp_path, "--max-sockets", "2", models=ECHO) as server:
        async with connect_with_websockets(server), connect_with_websockets(server) as second:
            async with connect_with_websockets(server) as third:
                with pytest.raises(websockets.ConnectionClosed):
                    await third.recv()
                assert third.close_code == 1013
            await second.send(json.dumps(INFER))
            assert json.loads(await second.recv())["type"] == "start"
        await wait_until(lambda: not server.services.websockets)
        async with connect_with_websockets(server) as again:
            await again.send(json.dumps(INFER))
            assert json.loads(await again.recv())["type"] == "start"


@async_test
async def test_websocket_shutdown_ends_streams_and_closes_with_1001(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with AsyncExitStack() as stack:
        up = await stack.enter_async_context(Upstream())
        up.response = stream_response(["Hello", gate])
        server_stack = AsyncExitStack()
        models = {"m": upstream_model(up.base_url)}
        server = await server_stack.enter_async_context(running_server(tmp_path, "--drain", "0.1", models=models))
        http = await stack.enter_async_context(aiohttp.ClientSession())
        ws = await http.ws_connect(server.url + "/ws")
        idle = await stack.enter_async_context(connect_with_websockets(server))
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
        await up.wait_until_idle()


def has_heartbeats(client: WebSocketClient) -> bool:
    return client.heartbeats > 3


@async_test
async def test_websocket_heartbeat_is_sent_once_for_all_operations(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, "--heartbeat", "0.02", models={"m": scripted_model("hang")}) as server,
        connect_websocket(server) as client,
        connect_websocket(server, protocols=(MSGPACK,)) as packed,
    ):
        for one in (client, packed):
            for id in range(3):
                await one.send(**INFER | {"id": id})
            for id in range(3):
                await one.next_event(id)
            reading = asyncio.create_task(one.next_message())
            await wait_until(partial(has_heartbeats, one))
            reading.cancel()


@async_test
async def test_websocket_without_pong_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "PING_SECONDS", 0.1)
    async with (
        running_server(tmp_path, models={"m": scripted_model("hang")}) as server,
        connect_with_websockets(server) as lively,
        open_raw_websocket(server) as dead,
    ):
        await dead.send(INFER_FRAME)
        opcodes: list[int] = []
        while not opcodes or opcodes[-1] != CLOSE:
            opcodes.append((await dead.read_frame())[0])
        assert opcodes == [TEXT, PING, CLOSE]
        await lively.send(json.dumps(INFER))
        assert json.loads(await lively.recv())["type"] == "start"
