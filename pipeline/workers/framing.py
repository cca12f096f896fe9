"""The framing of messages between a helper process and its parent.

A message is a msgpack map behind its length in four bytes, big-endian.
"""

from __future__ import annotations

import struct
from typing import Any

import msgpack

LENGTH_PREFIX = struct.Struct(">I")
MAX_MESSAGE_BYTES = 256_000_000  # a larger length means that the two sides are out of step


def pack(message: dict[str, Any]) -> bytes:
    body: bytes = msgpack.packb(message)
    return LENGTH_PREFIX.pack(len(body)) + body


def unpack(body: bytes | bytearray | memoryview) -> dict[str, Any]:
    message: dict[str, Any] = msgpack.unpackb(body)
    return message
