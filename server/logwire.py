"""A job's log as bytes: its parts as events, and the whole of it as one body. JSON has text, MessagePack has bytes."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgpack

from infraforge_runner.tail import LogPart
from server.wire import HEARTBEAT, JSON, MSGPACK, MSGPACK_EVENTS, NDJSON, SSE, Tag, to_json, to_msgpack

Pack = Callable[[Mapping[str, Any]], bytes]

COMPLETE = {"type": "complete"}


def _to_sse(message: Mapping[str, Any]) -> bytes:
    """Only what a client can go on from has an `id`."""
    position = b"id: %d\n" % message["next_offset"] if "next_offset" in message else b""
    return b"%bevent: %b\ndata: %b\n\n" % (position, message["type"].encode(), to_json(message))


def _to_line(message: Mapping[str, Any]) -> bytes:
    return to_json(message) + b"\n"


FOLLOWING: dict[str, Pack] = {SSE: _to_sse, NDJSON: _to_line, MSGPACK_EVENTS: to_msgpack}
"""What encodes the events of a log that is followed, by the answer's type."""


def _to_message(part: LogPart, job_id: str, text: str | bytes) -> dict[str, Any]:
    return {
        "type": "log",
        "job_id": job_id,
        "offset": part.offset,
        "next_offset": part.next_offset,
        "text": text,
    }


def _as_text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


class LogEncoder:
    """The events of a followed log in one of the types of `FOLLOWING`: each part is encoded once for all followers."""

    def __init__(self, kind: str, job_id: str) -> None:
        self._kind = kind
        self._job_id = job_id
        self._pack = FOLLOWING[kind]
        self.heartbeat = self._pack(HEARTBEAT)

    def encode(self, batch: Sequence[LogPart], first: int) -> bytes:
        return b"".join(part.encoded_as(self._kind, self._encode) for part in batch)

    def _encode(self, part: LogPart) -> bytes:
        text = part.data if self._kind == MSGPACK_EVENTS else _as_text(part.data)
        return self._pack(_to_message(part, self._job_id, text))

    def encode_end(self, job: Mapping[str, Any]) -> bytes:
        return self._pack({"type": "job", **job}) + self._pack(COMPLETE)


class LogSocketEncoder:
    """A part as one WebSocket message: encoded once for all followers, each of whom may have an id of its own."""

    def __init__(self, content_type: str, tag: Tag | None, job_id: str) -> None:
        self._content_type = content_type
        self._job_id = job_id
        self._encode, begin = _SOCKETS[content_type]
        self._head = None if tag is None else begin(tag)

    def __call__(self, part: LogPart) -> bytes:
        message = part.encoded_as(self._content_type, self._make)
        # What a map begins with takes one byte in both formats.
        return message if self._head is None else b"".join((self._head, memoryview(message)[1:]))

    def _make(self, part: LogPart) -> bytes:
        return self._encode(part, self._job_id)


_SOCKETS: dict[str, tuple[Callable[[LogPart, str], bytes], Callable[[Tag], bytes]]] = {
    JSON: (
        lambda part, job_id: to_json(_to_message(part, job_id, _as_text(part.data))),
        lambda tag: b'{"id":' + to_json(tag) + b",",
    ),
    MSGPACK: (
        lambda part, job_id: to_msgpack(_to_message(part, job_id, part.data)),
        lambda tag: b"\x86" + to_msgpack("id") + to_msgpack(tag),  # a map of six
    ),
}
"""By content type: what encodes a part, and the beginning of a message that has an `id` too."""


# --- the whole of it, as one body --------------------------------------------------------------------


def json_body(job_id: str, blocks: Iterable[bytes], **fields: Any) -> Iterator[bytes]:
    """The envelope, piece by piece: however large the log, one block of it is in memory. Invalid UTF-8 is U+FFFD."""
    yield b'{"status":"success","logs":{"job_id":' + to_json(job_id) + b',"logs":"'
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for block in blocks:
        yield to_json(decoder.decode(block))[1:-1]
    yield to_json(decoder.decode(b"", final=True))[1:-1] + b'",' + to_json(fields)[1:] + b"}"


def msgpack_body(job_id: str, blocks: Iterable[bytes], size: int, **fields: Any) -> Iterator[bytes]:
    """The same in MessagePack, with `size` bytes of log, which have to be under 4 GiB."""
    packer = msgpack.Packer(autoreset=False)
    packer.pack_map_header(2)
    packer.pack("status")
    packer.pack("success")
    packer.pack("logs")
    packer.pack_map_header(2 + len(fields))
    packer.pack("job_id")
    packer.pack(job_id)
    packer.pack("logs")
    yield packer.bytes() + b"\xc6" + size.to_bytes(4, "big")  # bin 32
    yield from blocks
    yield b"".join(to_msgpack(name) + to_msgpack(value) for name, value in fields.items())
