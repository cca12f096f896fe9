"""What passes between a worker and its parent: msgpack maps, each behind its length in four bytes, big-endian."""

from __future__ import annotations

import struct
from typing import Any

import msgpack

LENGTH = struct.Struct(">I")
MAX_MESSAGE = 256_000_000  # bytes; a length beyond it means that the two sides are out of step


def pack(message: dict[str, Any]) -> bytes:
    body: bytes = msgpack.packb(message)
    return LENGTH.pack(len(body)) + body


def unpack(body: bytes | bytearray | memoryview) -> dict[str, Any]:
    message: dict[str, Any] = msgpack.unpackb(body)
    return message
