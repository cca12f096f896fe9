"""A job's log as clients get it: from which position on, its parts as events, or the log so far as one body.

In JSON it is text, with U+FFFD for invalid UTF-8; in MessagePack it is bytes.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import msgpack
import msgspec

from infraforge_runner.jobs.log_file import LogFile
from infraforge_runner.jobs.log_follower import LogPart
from infraforge_runner.runner import JobRunner
from pipeline.errors import InvalidRequest
from pipeline.events.cursor import Cursor
from server.inference.encoders import HEARTBEAT, JSON, MSGPACK, MSGPACK_EVENTS, NDJSON, SSE, Tag, to_json, to_msgpack

MAX_QUERY_DIGITS = 15


@dataclass(frozen=True, slots=True)
class StartPosition:
    """Where in a log a client begins to read: at a byte, or at so many last lines; with neither, at the first byte."""

    offset: int | None = None
    lines: int | None = None

    @classmethod
    def from_query(cls, arguments: Mapping[str, str | None], lines: str) -> Self:
        """From a query's arguments; `lines` is this address's name for the number of last lines.

        Raises InvalidRequest.
        """
        fields = {name: _parse_number(value) for name, value in arguments.items() if value is not None}
        return cls.from_fields(fields, lines)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], lines: str) -> Self:
        """From the fields of a WebSocket's message; `lines` as in `from_query`. Raises InvalidRequest."""
        offset = _read_count(fields, "from", "a byte offset")
        last_lines = _read_count(fields, lines, "a number of last lines")
        if offset is not None and last_lines is not None:
            raise InvalidRequest(f"from, {lines}: expected one of the two, not both.")
        return cls(offset, last_lines)

    async def resolve(self, file: LogFile, size: int) -> int:
        """The offset in a log of `size` bytes. Raises InvalidRequest for one beyond its end."""
        if self.lines is not None:
            return await file.find_last_lines(self.lines, size)
        offset = self.offset or 0
        if offset > size:
            raise InvalidRequest(f"from: expected at most {size}, the bytes that this log has now.")
        return offset


async def follow_log(jobs: JobRunner, job_id: str, start: StartPosition) -> Cursor[LogPart]:
    """A cursor that follows this job's log from `start`; the caller closes it. Raises UnknownJob, InvalidRequest."""
    with LogFile(jobs.log_path(job_id)) as file:
        offset = await start.resolve(file, file.size())
    return jobs.get_log_follower(job_id).attach(offset)


def _read_count(fields: Mapping[str, Any], name: str, expected: str) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidRequest(f"{name}: expected {expected}, 0 or more.")
    return value


def _parse_number(value: str) -> int | str:
    """The number that `value` spells; `value` itself where it spells none, for the error."""
    return int(value) if value.isascii() and value.isdigit() and len(value) <= MAX_QUERY_DIGITS else value


# --- parts as events ---------------------------------------------------------------------------------

EventEncoder = Callable[[Mapping[str, Any]], bytes]

COMPLETE = {"type": "complete"}


def _encode_sse(event: Mapping[str, Any]) -> bytes:
    """`id` is the position from which a client can resume: only parts of the log have one."""
    id_line = b"id: %d\n" % event["next_offset"] if "next_offset" in event else b""
    return b"%bevent: %b\ndata: %b\n\n" % (id_line, event["type"].encode(), to_json(event))


def _encode_ndjson(event: Mapping[str, Any]) -> bytes:
    return to_json(event) + b"\n"


EVENT_ENCODERS: dict[str, EventEncoder] = {SSE: _encode_sse, NDJSON: _encode_ndjson, MSGPACK_EVENTS: to_msgpack}
"""By content type: the encoder of a followed log's events."""


def _log_event(part: LogPart, job_id: str, text: str | bytes) -> dict[str, Any]:
    return {
        "type": "log",
        "job_id": job_id,
        "offset": part.offset,
        "next_offset": part.next_offset,
        "text": text,
    }


def _decode_text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


class LogEncoder:
    """Encodes a followed log in one of the types of `EVENT_ENCODERS`: each part once for all followers."""

    def __init__(self, content_type: str, job_id: str) -> None:
        self._content_type = content_type
        self._job_id = job_id
        self._encode_event = EVENT_ENCODERS[content_type]
        self.heartbeat = self._encode_event(msgspec.to_builtins(HEARTBEAT))

    def encode(self, batch: Sequence[LogPart], first: int) -> bytes:
        return b"".join(part.encoded_as(self._content_type, self._encode_part) for part in batch)

    def _encode_part(self, part: LogPart) -> bytes:
        text = part.data if self._content_type == MSGPACK_EVENTS else _decode_text(part.data)
        return self._encode_event(_log_event(part, self._job_id, text))

    def encode_end(self, job: Mapping[str, Any]) -> bytes:
        return self._encode_event({"type": "job", **job}) + self._encode_event(COMPLETE)


class LogSocketEncoder:
    """Encodes a part as one WebSocket message: once for all followers, each of whom may have an id of its own."""

    def __init__(self, content_type: str, tag: Tag | None, job_id: str) -> None:
        self._content_type = content_type
        self._job_id = job_id
        self._encode, encode_prefix = _SOCKET_ENCODERS[content_type]
        self._prefix = None if tag is None else encode_prefix(tag)

    def __call__(self, part: LogPart) -> bytes:
        message = part.encoded_as(self._content_type, self._encode_part)
        # The first byte of the message, which begins the map in both formats, is replaced by the prefix.
        return message if self._prefix is None else b"".join((self._prefix, memoryview(message)[1:]))

    def _encode_part(self, part: LogPart) -> bytes:
        return self._encode(part, self._job_id)


_SOCKET_ENCODERS: dict[str, tuple[Callable[[LogPart, str], bytes], Callable[[Tag], bytes]]] = {
    JSON: (
        lambda part, job_id: to_json(_log_event(part, job_id, _decode_text(part.data))),
        lambda tag: b'{"id":' + to_json(tag) + b",",
    ),
    MSGPACK: (
        lambda part, job_id: to_msgpack(_log_event(part, job_id, part.data)),
        lambda tag: b"\x86" + to_msgpack("id") + to_msgpack(tag),  # a map of six
    ),
}
"""By content type: the encoder of a part, and that of the beginning of a message with an `id`."""


# --- the log so far, as one body ---------------------------------------------------------------------


MAX_MSGPACK_BIN = 2**32 - 1  # bytes that MessagePack can carry in one value


def json_body(job_id: str, blocks: Iterable[bytes], **fields: Any) -> Iterator[bytes]:
    """The envelope in JSON, in pieces: however large the log, one block of it is in memory."""
    yield b'{"status":"success","logs":{"job_id":' + to_json(job_id) + b',"logs":"'
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for block in blocks:
        yield to_json(decoder.decode(block))[1:-1]
    yield to_json(decoder.decode(b"", final=True))[1:-1] + b'",' + to_json(fields)[1:] + b"}"


def msgpack_body(job_id: str, blocks: Iterable[bytes], size: int, **fields: Any) -> Iterator[bytes]:
    """The same in MessagePack, with `size` bytes of log, at most `MAX_MSGPACK_BIN`."""
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
