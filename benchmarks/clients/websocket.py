"""Just enough of a WebSocket's client: the handshake, frames out; what comes in goes on as raw bytes, frames and all.

Servers send text unmasked, so a marker can be counted in the raw bytes of many frames at once.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable

from benchmarks.clients.base import WrongAnswer
from benchmarks.clients.http1 import END_OF_HEAD

TEXT = 0x81  # final, of text (RFC 6455, 5.2)
MASKED = 0x80
MASK = bytes(4)  # has to be there; this one changes nothing


def frame(payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", TEXT, MASKED | size) + MASK + payload
    if size < 65_536:
        return struct.pack("!BBH", TEXT, MASKED | 126, size) + MASK + payload
    return struct.pack("!BBQ", TEXT, MASKED | 127, size) + MASK + payload


class Socket(asyncio.Protocol):
    """`heard` gets what comes after the handshake; `lost` is called when the server closes."""

    def __init__(self, heard: Callable[[bytes], None], lost: Callable[[str], None]) -> None:
        self._heard = heard
        self._lost = lost
        self._head = b""
        self._left = False
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        why = f"the server closed the socket ({exc})"
        if not self.open.done():
            self.open.set_exception(WrongAnswer(why))
        elif not self._left:
            self._lost(why)

    def data_received(self, data: bytes) -> None:
        if self.open.done():
            self._heard(data)
            return
        self._head += data
        head, ended, rest = self._head.partition(END_OF_HEAD)
        if not ended:
            return
        if not head.startswith(b"HTTP/1.1 101"):
            self.open.set_exception(WrongAnswer(f"the handshake was answered with {self._head[:300]!r}"))
            return
        self.open.set_result(None)
        if rest:
            self._heard(rest)

    def send(self, payload: bytes) -> None:
        self._transport.write(frame(payload))

    def close(self) -> None:
        self._left = True
        self._transport.close()


async def connect(port: int, path: str, heard: Callable[[bytes], None], lost: Callable[[str], None]) -> Socket:
    """A socket whose handshake is done. Raises WrongAnswer."""
    handshake = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: forgeline.v1.json\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    transport, socket = await loop.create_connection(lambda: Socket(heard, lost), "127.0.0.1", port)
    transport.write(handshake.encode())
    await socket.open
    return socket
