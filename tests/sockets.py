"""WebSockets for tests: message by message with a library, and frame by frame by hand.

async with connect_websocket(server) as client:
    await client.send(op="infer", id="a", model="echo", text="hello")
    events = await client.read_until_complete("a")

async with open_raw_websocket(server) as connection:
    await connection.send(frame(TEXT, b'{"op": ...'))
    opcode, payload = await connection.read_frame()
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import msgpack
import websockets
from websockets.typing import Subprotocol

from tests.jobs import ServerAccess
from tests.running_server import RunningServer

JSON, MSGPACK = "forgeline.v1.json", "forgeline.v1.msgpack"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

Message = dict[str, Any]


class WebSocketClient:
    """One socket, whose messages are told apart by their `id`. Heartbeats are counted and left out."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.heartbeats = 0
        self._packed = ws.protocol == MSGPACK
        self._waiting: dict[Any, deque[Message]] = defaultdict(deque)

    async def send(self, **message: Any) -> None:
        if self._packed:
            await self.ws.send_bytes(msgpack.packb(message))
        else:
            await self.ws.send_str(json.dumps(message))

    async def next_message(self) -> Message:
        """The next message, whatever its id. Raises EOFError at the end of the socket."""
        while True:
            message = await self.ws.receive()
            if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                raise EOFError(self.ws.close_code)
            received: Message = msgpack.unpackb(message.data) if self._packed else json.loads(message.data)
            if received["type"] != "heartbeat":
                return received
            assert received == {"type": "heartbeat"}
            self.heartbeats += 1

    async def next_event(self, id: Any = None) -> Message:
        """The next message under this id; what comes for others waits for them."""
        while not self._waiting[id]:
            received = await self.next_message()
            self._waiting[received.pop("id", None)].append(received)
        return self._waiting[id].popleft()

    async def read_until(self, id: Any, kind: str) -> list[Message]:
        """The messages under this id, up to the first of this type."""
        received = [await self.next_event(id)]
        while received[-1]["type"] != kind:
            received.append(await self.next_event(id))
        return received

    async def read_until_complete(self, id: Any = None) -> list[Message]:
        return await self.read_until(id, "complete")

    async def wait_closed(self) -> int | None:
        """Reads to the socket's end; its close code."""
        with suppress(EOFError):
            while True:
                await self.next_message()
        return self.ws.close_code


@asynccontextmanager
async def connect_websocket(
    server: ServerAccess, path: str = "/ws", protocols: tuple[str, ...] = (JSON,), **headers: str
) -> AsyncIterator[WebSocketClient]:
    async with server.http.ws_connect(server.url + path, protocols=protocols, headers=headers, max_msg_size=0) as ws:
        yield WebSocketClient(ws)


class RawSocket:
    """One connection. What is not asked for is not read, so that the server can't write.

    `answer` is the head of the answer to the handshake.
    """

    def __init__(self, line: socket.socket) -> None:
        self.socket = line
        self.handshake_response = b""
        self._read = bytearray()

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def send_message(self, **message: Any) -> None:
        await self.send(frame(TEXT, json.dumps(message).encode()))

    async def read_frame(self) -> tuple[int, bytes]:
        """The next frame's opcode and payload. Raises EOFError."""
        head = await self.read_exactly(2)
        size = head[1]
        if size >= 126:
            size = int.from_bytes(await self.read_exactly(2 if size == 126 else 8), "big")
        return head[0] & 15, await self.read_exactly(size)

    async def read_message(self) -> Message:
        """The next message but heartbeats, in JSON. Pings are answered."""
        while True:
            opcode, payload = await self.read_frame()
            if opcode == PING:
                await self.send(frame(PONG, payload))
            elif opcode == CLOSE:
                raise EOFError(payload)
            else:
                message: Message = json.loads(payload)
                if message["type"] != "heartbeat":
                    return message

    async def read_close_code(self) -> int:
        """Reads up to the close frame. Raises EOFError where the connection ends without one."""
        opcode = TEXT
        while opcode != CLOSE:
            opcode, payload = await self.read_frame()
        return int.from_bytes(payload[:2], "big")

    async def read_to_end(self) -> bytes:
        """All that comes until the server closes the connection."""
        with suppress(EOFError):
            while True:
                await self.read_exactly(len(self._read) + 1, keep=True)
        return bytes(self._read)

    async def read_exactly(self, count: int, *, keep: bool = False) -> bytes:
        while len(self._read) < count:
            try:
                data = await asyncio.get_running_loop().sock_recv(self.socket, 1 << 20)
            except ConnectionError as error:
                raise EOFError from error
            if not data:
                raise EOFError
            self._read += data
        data_read = bytes(self._read[:count])
        if not keep:
            del self._read[:count]
        return data_read


@asynccontextmanager
async def open_raw_websocket(
    server: RunningServer, path: str = "/ws", headers: Mapping[str, str] | None = None
) -> AsyncIterator[RawSocket]:
    """A handshake by hand; whether it was taken is in `answer`."""
    async with open_raw_connection(server) as line:
        await line.send(handshake_request(path, headers))
        while not line.handshake_response.endswith(b"\r\n\r\n"):
            line.handshake_response += await line.read_exactly(1)
        yield line


@asynccontextmanager
async def open_raw_connection(server: RunningServer) -> AsyncIterator[RawSocket]:
    """A connection that takes in little unread."""
    line = socket.socket()
    line.setblocking(False)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    try:
        await asyncio.get_running_loop().sock_connect(line, ("127.0.0.1", server.port))
        yield RawSocket(line)
    finally:
        line.close()


def handshake_request(path: str = "/ws", headers: Mapping[str, str] | None = None) -> bytes:
    """A header whose value is empty is left out."""
    fields = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        **(headers or {}),
    }
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items() if value)]
    return "\r\n".join([*lines, "", ""]).encode()


def frame(opcode: int, payload: bytes = b"", *, final: bool = True, masked: bool = True, reserved: int = 0) -> bytes:
    """A frame as a client sends it (RFC 6455, 5.2)."""
    head = bytes([final << 7 | reserved << 4 | opcode])
    size, bit = len(payload), masked << 7
    if size < 126:
        head += bytes([bit | size])
    elif size < 65_536:
        head += struct.pack("!BH", bit | 126, size)
    else:
        head += struct.pack("!BQ", bit | 127, size)
    if not masked:
        return head + payload
    mask = b"\x9a\x31\x05\xc7"  # any four bytes do; the same each time, since pytest names tests by them
    repeated = (mask * (size // 4 + 1))[:size]
    return head + mask + (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")


def connect_with_websockets(
    server: RunningServer, *protocols: str, path: str = "/ws", **options: Any
) -> websockets.connect:
    """An independent client."""
    address = server.url.replace("http", "ws") + path
    return websockets.connect(address, subprotocols=[Subprotocol(name) for name in protocols] or None, **options)
