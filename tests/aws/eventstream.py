"""AWS's event-stream framing: messages of a prelude, headers and a payload, each with its CRC."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

STRING = 7  # the type of a header's value; no service that we speak for uses another


def message(headers: Mapping[str, str], payload: bytes, *, damaged: bool = False) -> bytes:
    """One message. `damaged`: its last checksum is wrong."""
    pairs = ((name.encode(), value.encode()) for name, value in headers.items())
    coded = b"".join(
        struct.pack(">B", len(name)) + name + struct.pack(">BH", STRING, len(value)) + value for name, value in pairs
    )
    lengths = struct.pack(">II", len(coded) + len(payload) + 16, len(coded))
    begun = lengths + struct.pack(">I", zlib.crc32(lengths)) + coded + payload
    return begun + struct.pack(">I", zlib.crc32(begun) ^ damaged)


def event(kind: str, payload: Any, *, damaged: bool = False) -> bytes:
    """An event of this kind: bytes are the payload as they are, anything else goes as JSON."""
    is_raw = isinstance(payload, bytes)
    media = "application/octet-stream" if is_raw else "application/json"
    headers = {":event-type": kind, ":content-type": media, ":message-type": "event"}
    return message(headers, payload if is_raw else json.dumps(payload).encode(), damaged=damaged)


def exception(member: str, payload: Mapping[str, Any]) -> bytes:
    """An exception that the service's model knows."""
    headers = {":exception-type": member, ":content-type": "application/json", ":message-type": "exception"}
    return message(headers, json.dumps(payload).encode())


def error(code: str, text: str) -> bytes:
    """An error that it does not know."""
    return message({":message-type": "error", ":error-code": code, ":error-message": text}, b"")
