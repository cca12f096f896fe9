"""What comes over /ws: frames and messages of every kind, by hand and by independent clients."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack
import pytest
import websockets

from tests.aio import asynchronous, comes_true
from tests.server.checks import check_stream
from tests.serving import says, serving
from tests.sockets import (
    CONTINUATION,
    JSON,
    MSGPACK,
    PING,
    PONG,
    TEXT,
    dial,
    frame,
    raw_socket,
    talking,
)

INFER = {"op": "infer", "id": "a", "model": "m", "text": "hi"}
ECHO = {"m": says("echo")}
INFER_FRAME = frame(TEXT, json.dumps(INFER).encode())


@pytest.mark.parametrize(("protocol", "wrong"), [(JSON, b'{"op":"infer"}'), (MSGPACK, '{"op":"infer"}')])
@asynchronous
async def test_the_wrong_kind_of_frame_is_an_error_and_the_socket_stays_open(
    tmp_path: Path, protocol: str, wrong: str | bytes
) -> None:
    async with serving(tmp_path, models=ECHO) as server, talking(server, protocols=(protocol,)) as talk:
        await (talk.ws.send_bytes(wrong) if isinstance(wrong, bytes) else talk.ws.send_str(wrong))
        assert (await talk.next())["code"] == "invalid_request"
        await talk.say(**INFER)
        check_stream(await talk.whole("a"))


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
@asynchronous
async def test_bad_messagepack_is_an_error_and_the_socket_stays_open(tmp_path: Path, packed: bytes) -> None:
    async with serving(tmp_path, models=ECHO) as server, talking(server, protocols=(MSGPACK,)) as talk:
        await talk.ws.send_bytes(packed)
        told = await talk.any()
        assert (told["type"], told["code"]) == ("error", "invalid_request")
        await talk.say(**INFER | {"id": "b"})
        check_stream(await talk.whole("b"))


@pytest.mark.parametrize("size", [1, 2, 7, 50])
@asynchronous
async def test_a_message_may_come_in_fragments_with_pings_between_them(tmp_path: Path, size: int) -> None:
    message = json.dumps(INFER).encode()
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    async with serving(tmp_path, models=ECHO) as server, raw_socket(server) as line:
        for number, part in enumerate(parts):
            await line.send(frame(CONTINUATION if number else TEXT, part, final=number == len(parts) - 1))
            await line.send(frame(PING, b"%d" % number))
        pongs: list[bytes] = []
        told: list[dict[str, Any]] = []
        while len(pongs) < len(parts) or not told or told[-1]["type"] != "complete":
            opcode, payload = await line.frame()
            if opcode == PONG:
                pongs.append(payload)
            else:
                told.append(json.loads(payload))
        check_stream(told)


@asynchronous
async def test_unmasked_frames_do_no_harm(tmp_path: Path) -> None:
    async with serving(tmp_path, models=ECHO) as server, raw_socket(server) as line:
        await line.send(frame(TEXT, json.dumps(INFER).encode(), masked=False))
        told = [await line.message()]
        while told[-1]["type"] != "complete":
            told.append(await line.message())
        check_stream(told)


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
@asynchronous
async def test_what_is_no_websocket_ends_this_socket_alone(tmp_path: Path, broken: bytes) -> None:
    async with serving(tmp_path, models={"m": says("say:Hello; hang")}) as server, talking(server) as talk:
        await talk.say(**INFER)
        await talk.until("a", "chunk")
        async with raw_socket(server) as line:
            await line.send(INFER_FRAME + broken)
            await line.rest()
        await comes_true(lambda: server.services.streams.running == 1)
        await talk.say(op="cancel", id="x", target="a")
        await talk.whole("a")


@pytest.mark.parametrize("protocol", [JSON, MSGPACK])
@asynchronous
async def test_a_message_one_byte_too_large_closes_with_1009(tmp_path: Path, protocol: str) -> None:
    async with serving(tmp_path, "--max-body", "5000", models=ECHO) as server:
        for client in ("websockets", "aiohttp"):
            exact = {**INFER, "text": ""}
            pack: Any = msgpack.packb if protocol == MSGPACK else lambda value: json.dumps(value).encode()
            exact["text"] = "x" * 4000
            exact["text"] += "x" * (5000 - len(pack(exact)))
            assert len(pack(exact)) == 5000
            if client == "aiohttp":
                async with talking(server, protocols=(protocol,)) as talk:
                    await talk.say(**exact)
                    check_stream(await talk.whole("a"))
                    await talk.say(**exact | {"text": exact["text"] + "x"})
                    assert await talk.closed() == 1009
            else:
                async with dial(server, protocol) as ws:
                    large = pack(exact | {"text": exact["text"] + "x"})
                    await ws.send(large if protocol == MSGPACK else large.decode())
                    with pytest.raises(websockets.ConnectionClosed):
                        await ws.recv()
                    assert ws.close_code == 1009


@asynchronous
async def test_fragments_count_together_and_a_huge_message_closes_with_1009_too(tmp_path: Path) -> None:
    async with serving(tmp_path, "--max-body", "1000000", models=ECHO) as server:
        async with raw_socket(server) as line:
            half = b"x" * 600_000
            await line.send(frame(TEXT, half, final=False) + frame(CONTINUATION, half))
            assert await line.close_code() == 1009
        for _ in range(3):
            async with dial(server, max_size=None) as ws:
                with suppress(websockets.ConnectionClosed):
                    await ws.send("x" * 50_000_000)
                with pytest.raises(websockets.ConnectionClosed):
                    await ws.recv()
                assert ws.close_code == 1009
        assert (await server.get("/healthz")).status == 200
