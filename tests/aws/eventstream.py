"""AWS's event-stream framing: messages of a prelude, headers and a payload, each with its CRC."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

STRING = 7  # the type of a header's value; the services here use no other


def encode_message(headers: Mapping[str, str], payload: bytes, *, damaged: bool = False) -> bytes:
    """Encode one message. `damaged`: with a wrong last checksum."""
    pairs = ((name.encode(), value.encode()) for name, value in headers.items())
    encoded_headers = b"".join(
        struct.pack(">B", len(name)) + name + struct.pack(">BH", STRING, len(value)) + value for name, value in pairs
    )
    lengths = struct.pack(">II", len(encoded_headers) + len(payload) + 16, len(encoded_headers))
    head = lengths + struct.pack(">I", zlib.crc32(lengths)) + encoded_headers + payload
    return head + struct.pack(">I", zlib.crc32(head) ^ damaged)


def encode_event(kind: str, payload: Any, *, damaged: bool = False) -> bytes:
    """Encode an event of this kind. The payload is bytes, or anything else as JSON."""
    is_raw = isinstance(payload, bytes)
    media = "application/octet-stream" if is_raw else "application/json"
    headers = {":event-type": kind, ":content-type": media, ":message-type": "event"}
    return encode_message(headers, payload if is_raw else json.dumps(payload).encode(), damaged=damaged)


def encode_exception(member: str, payload: Mapping[str, Any]) -> bytes:
    """Encode an exception of the service's model."""
    headers = {":exception-type": member, ":content-type": "application/json", ":message-type": "exception"}
    return encode_message(headers, json.dumps(payload).encode())


def encode_error(code: str, text: str) -> bytes:
    """Encode an error that is not in the service's model."""
    return encode_message({":message-type": "error", ":error-code": code, ":error-message": text}, b"")
