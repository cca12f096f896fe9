"""A minimal WebSocket client: the handshake and outgoing frames. Incoming data is passed on as raw bytes.

Servers send unmasked text, so a marker can be counted in the raw bytes of many frames at once.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

from benchmarks.clients.base import WrongResponse
from benchmarks.clients.http1 import END_OF_HEAD

TEXT = 0x81  # final, of text (RFC 6455, 5.2)
MASKED = 0x80
MASK = bytes(4)  # clients must mask; this mask changes nothing


def frame(payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", TEXT, MASKED | size) + MASK + payload
    if size < 65_536:
        return struct.pack("!BBH", TEXT, MASKED | 126, size) + MASK + payload
    return struct.pack("!BBQ", TEXT, MASKED | 127, size) + MASK + payload


class WebSocketClient(asyncio.Protocol):
    """Calls `on_data` with data after the handshake, and `on_lost` when the server closes the connection."""

    def __init__(self, on_data: Callable[[bytes], None], on_lost: Callable[[str], None]) -> None:
        self._on_data = on_data
        self._on_lost = on_lost
        self._head = b""
        self._is_closing = False
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        reason = f"the server closed the socket ({exc})"
        if not self.open.done():
            self.open.set_exception(WrongResponse(reason))
        elif not self._is_closing:
            self._on_lost(reason)

    def data_received(self, data: bytes) -> None:
        if self.open.done():
            self._on_data(data)
            return
        self._head += data
        head, separator, rest = self._head.partition(END_OF_HEAD)
        if not separator:
            return
        if not head.startswith(b"HTTP/1.1 101"):
            self.open.set_exception(WrongResponse(f"the handshake was answered with {self._head[:300]!r}"))
            return
        self.open.set_result(None)
        if rest:
            self._on_data(rest)

    def send(self, payload: bytes) -> None:
        self._transport.write(frame(payload))

    def close(self) -> None:
        self._is_closing = True
        self._transport.close()


async def connect(
    port: int, path: str, on_data: Callable[[bytes], None], on_lost: Callable[[str], None]
) -> WebSocketClient:
    """Connect and complete the handshake. Raises WrongResponse."""
    handshake = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: forgeline.v1.json\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    transport, socket = await loop.create_connection(lambda: WebSocketClient(on_data, on_lost), "127.0.0.1", port)
    transport.write(handshake.encode())
    await socket.open
    return socket
