"""What comes over /ws: frames and messages of every kind, by hand and by independent clients."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest
import websockets

from tests.async_tests import async_test, wait_until
from tests.running_server import running_server, scripted_model
from tests.server.checks import check_stream
from tests.sockets import (
    CONTINUATION,
    JSON,
    MSGPACK,
    PING,
    PONG,
    TEXT,
    connect_websocket,
    connect_with_websockets,
    frame,
    open_raw_websocket,
)

INFER = {"op": "infer", "id": "a", "model": "m", "text": "hi"}
ECHO = {"m": scripted_model("echo")}
INFER_FRAME = frame(TEXT, json.dumps(INFER).encode())


@pytest.mark.parametrize(("protocol", "wrong"), [(JSON, b'{"op":"infer"}'), (MSGPACK, '{"op":"infer"}')])
@async_test
async def test_wrong_frame_type_is_error_and_socket_stays_open(
    tmp_path: Path, protocol: str, wrong: str | bytes
) -> None:
    async with (
        running_server(tmp_path, models=ECHO) as server,
        connect_websocket(server, protocols=(protocol,)) as ws_client,
    ):
        await (ws_client.ws.send_bytes(wrong) if isinstance(wrong, bytes) else ws_client.ws.send_str(wrong))
        assert (await ws_client.next_event())["code"] == "invalid_request"
        await ws_client.send(**INFER)
        check_stream(await ws_client.read_until_complete("a"))


DEEP = b"\x91" * 100_000 + b"\xc0"
TIMESTAMP, EXTENSION = msgpack.Timestamp(1), msgpack.ExtType(7, b"x")


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xc1",
        b"\x81",
        b"\xdf\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc7\x01\x05",
        DEEP,
        b"\x81\xa1a" * 50_000 + b"\xc0",
        msgpack.packb(INFER) + b"\xc0",
        msgpack.packb([1]),
        msgpack.packb(7),
        msgpack.packb(INFER | {"text": b"\xff"}),
        msgpack.packb(INFER | {"text": EXTENSION}),
        msgpack.packb(INFER | {"text": TIMESTAMP}),
        msgpack.packb(INFER | {"frames": [EXTENSION]}),
        msgpack.packb(INFER | {"id": EXTENSION}),
        msgpack.packb(INFER | {"id": b"a"}),
        msgpack.packb(INFER | {"op": EXTENSION}),
        msgpack.packb(INFER | {"op": b"infer"}),
        msgpack.packb(INFER | {"model": b"m"}),
        msgpack.packb(INFER | {"x": {"y": [EXTENSION]}}),
        msgpack.packb({b"op": "infer"}),
        msgpack.packb(INFER | {7: 1}, strict_types=True),
        msgpack.packb({EXTENSION: 1}),
        b"\x81\xa2op\xa2\xff\xfe",
    ],
)
@async_test
async def test_invalid_messagepack_message_is_error_and_socket_stays_open(tmp_path: Path, packed: bytes) -> None:
    async with (
        running_server(tmp_path, models=ECHO) as server,
        connect_websocket(server, protocols=(MSGPACK,)) as ws_client,
    ):
        await ws_client.ws.send_bytes(packed)
        messages = await ws_client.next_message()
        assert (messages["type"], messages["code"]) == ("error", "invalid_request")
        await ws_client.send(**INFER | {"id": "b"})
        check_stream(await ws_client.read_until_complete("b"))


@pytest.mark.parametrize("size", [1, 2, 7, 50])
@async_test
async def test_fragmented_message_with_pings_is_accepted(tmp_path: Path, size: int) -> None:
    message = json.dumps(INFER).encode()
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    async with running_server(tmp_path, models=ECHO) as server, open_raw_websocket(server) as connection:
        for number, part in enumerate(parts):
            await connection.send(frame(CONTINUATION if number else TEXT, part, final=number == len(parts) - 1))
            await connection.send(frame(PING, b"%d" % number))
        pongs: list[bytes] = []
        messages: list[dict[str, Any]] = []
        while len(pongs) < len(parts) or not messages or messages[-1]["type"] != "complete":
            opcode, payload = await connection.read_frame()
            if opcode == PONG:
                pongs.append(payload)
            else:
                messages.append(json.loads(payload))
        check_stream(messages)


@async_test
async def test_unmasked_frame_is_handled(tmp_path: Path) -> None:
    async with running_server(tmp_path, models=ECHO) as server, open_raw_websocket(server) as connection:
        await connection.send(frame(TEXT, json.dumps(INFER).encode(), masked=False))
        messages = [await connection.read_message()]
        while messages[-1]["type"] != "complete":
            messages.append(await connection.read_message())
        check_stream(messages)


@pytest.mark.parametrize(
    "broken",
    [
        frame(TEXT, b"\xff\xfe"),
        frame(3, b"x"),
        frame(11, b"x"),
        frame(TEXT, b"x", reserved=4),
        frame(CONTINUATION, b"x"),
        frame(TEXT, b"x", final=False) + frame(TEXT, b"x"),
        frame(PING, b"x" * 126),
        frame(PING, b"x", final=False),
        frame(8, b"x"),
        frame(8, b"\x03\xe8\xff"),
        frame(TEXT, b"")[:1] + b"\xff" + b"\xff" * 8,
    ],
)
@async_test
async def test_protocol_violation_closes_only_its_socket(tmp_path: Path, broken: bytes) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("say:Hello; hang")}) as server,
        connect_websocket(server) as ws_client,
    ):
        await ws_client.send(**INFER)
        await ws_client.read_until("a", "chunk")
        async with open_raw_websocket(server) as connection:
            await connection.send(INFER_FRAME + broken)
            await connection.read_to_end()
        await wait_until(lambda: server.services.streams.running_count == 1)
        await ws_client.send(op="cancel", id="x", target="a")
        await ws_client.read_until_complete("a")


@pytest.mark.parametrize("protocol", [JSON, MSGPACK])
@async_test
async def test_too_large_message_closes_with_1009(tmp_path: Path, protocol: str) -> None:
    async with running_server(tmp_path, "--max-body", "5000", models=ECHO) as server:
        for client in ("websockets", "aiohttp"):
            exact = {**INFER, "text": ""}
            pack: Any = msgpack.packb if protocol == MSGPACK else lambda value: json.dumps(value).encode()
            exact["text"] = "x" * 4000
            exact["text"] += "x" * (5000 - len(pack(exact)))
            assert len(pack(exact)) == 5000
            if client == "aiohttp":
                async with connect_websocket(server, protocols=(protocol,)) as ws_client:
                    await ws_client.send(**exact)
                    check_stream(await ws_client.read_until_complete("a"))
                    await ws_client.send(**exact | {"text": exact["text"] + "x"})
                    assert await ws_client.wait_closed() == 1009
            else:
                async with connect_with_websockets(server, protocol) as ws:
                    large = pack(exact | {"text": exact["text"] + "x"})
                    await ws.send(large if protocol == MSGPACK else large.decode())
                    with pytest.raises(websockets.ConnectionClosed):
                        await ws.recv()
                    assert ws.close_code == 1009


@async_test
async def test_too_large_fragmented_message_closes_with_1009(tmp_path: Path) -> None:
    async with running_server(tmp_path, "--max-body", "1000000", models=ECHO) as server:
        async with open_raw_websocket(server) as connection:
            half = b"x" * 600_000
            await connection.send(frame(TEXT, half, final=False) + frame(CONTINUATION, half))
            assert await connection.read_close_code() == 1009
        for _ in range(3):
            async with connect_with_websockets(server, max_size=None) as ws:
                with suppress(websockets.ConnectionClosed):
                    await ws.send("x" * 50_000_000)
                with pytest.raises(websockets.ConnectionClosed):
                    await ws.recv()
                assert ws.close_code == 1009
        assert (await server.get("/healthz")).status == 200
