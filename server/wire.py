"""Events and bodies as bytes: JSON, MessagePack, SSE, NDJSON. Encodes a whole batch, when a cursor has read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgpack
import msgspec

from pipeline.messages import Failure, Result, ToolCallPiece
from pipeline.streams import Complete, Delta, Record, Start
from server.errors import describe

JSON = "application/json"
MSGPACK = "application/msgpack"
SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
MSGPACK_EVENTS = "application/vnd.forgeline.events+msgpack"
TEXT = "text/plain"

Tag = str | int
"""A client's own id for one of the things that its socket carries."""

to_json: Callable[[Any], bytes] = msgspec.json.Encoder().encode


def to_msgpack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


BODIES: dict[str, Callable[[Any], bytes]] = {JSON: to_json, MSGPACK: to_msgpack}
"""What encodes a body of each type."""


def to_message(record: Record, seq: int, model: str) -> dict[str, Any]:
    """The event that a record is. `model` is the stream's, where it has only one."""
    told: dict[str, Any]
    match record:
        case str():
            told = {"type": "chunk", "seq": seq, "model": model, "delta": record}
        case Delta(model=of, text=text):
            told = {"type": "chunk", "seq": seq, "model": of, "delta": text}
        case ToolCallPiece():  # its text is empty: who joins the chunks gets what the result says
            piece = {"index": record.index, "id": record.id, "name": record.name, "arguments": record.arguments}
            told = {"type": "chunk", "seq": seq, "model": model, "delta": "", "tool_call": piece}
        case Result():
            told = {"type": "result", "seq": seq, "model": record.model, **record.envelope}
        case Failure():
            told = {"type": "error", "seq": seq, "model": record.model, **describe(record.error)}
        case Start(stream_id, request, models):
            told = {"type": "start", "seq": seq, "stream_id": stream_id, "request": request, "models": models}
        case Complete():
            told = {"type": "complete", "seq": seq}
    return told


def tagged(message: Mapping[str, Any], tag: Tag | None) -> dict[str, Any]:
    """The message under the id by which its client knows it; None where a socket carries one thing at a time."""
    return dict(message) if tag is None else {"id": tag, **message}


HEARTBEAT = {"type": "heartbeat"}


T_contra = TypeVar("T_contra", contravariant=True)


class Encoder(Protocol[T_contra]):
    """A format of events. `first` is the position of the batch's first record: its seq, in a stream."""

    heartbeat: bytes

    def encode(self, batch: Sequence[T_contra], first: int) -> bytes: ...


class SseEncoder:
    """`id` is the seq, `event` the type, `data` the whole event as JSON (WHATWG HTML, server-sent events)."""

    heartbeat = b"event: heartbeat\ndata: " + to_json(HEARTBEAT) + b"\n\n"

    def __init__(self, model: str) -> None:
        self._model = model
        self._chunk = (
            b'id: %d\nevent: chunk\ndata: {"type":"chunk","seq":%d,"model":' + literal(model) + b',"delta":%b}\n\n'
        )

    def encode(self, batch: Sequence[Record], first: int) -> bytes:
        chunk = self._chunk  # a template: a third of the time that a dict and its encoding take
        return b"".join(
            [
                chunk % (seq, seq, to_json(record)) if type(record) is str else self._event(record, seq)
                for seq, record in enumerate(batch, first)
            ]
        )

    def _event(self, record: Record, seq: int) -> bytes:
        message = to_message(record, seq, self._model)
        return b"id: %d\nevent: %b\ndata: %b\n\n" % (seq, message["type"].encode(), to_json(message))


class NdjsonEncoder:
    """One event a line."""

    heartbeat = to_json(HEARTBEAT) + b"\n"

    def __init__(self, model: str) -> None:
        self._model = model

    def encode(self, batch: Sequence[Record], first: int) -> bytes:
        return b"".join(
            to_json(to_message(record, seq, self._model)) + b"\n" for seq, record in enumerate(batch, first)
        )


class MsgpackEncoder:
    """A sequence of maps, one after the other."""

    heartbeat = to_msgpack(HEARTBEAT)

    def __init__(self, model: str) -> None:
        self._model = model

    def encode(self, batch: Sequence[Record], first: int) -> bytes:
        return b"".join(to_msgpack(to_message(record, seq, self._model)) for seq, record in enumerate(batch, first))


class TextEncoder:
    """The bare text, for `curl -N`."""

    heartbeat = b""

    def __init__(self, model: str) -> None:
        pass

    def encode(self, batch: Sequence[Record], first: int) -> bytes:
        return "".join(record for record in batch if isinstance(record, str)).encode()


ENCODERS: dict[str, Callable[[str], Encoder[Record]]] = {
    SSE: SseEncoder,
    NDJSON: NdjsonEncoder,
    MSGPACK_EVENTS: MsgpackEncoder,
    TEXT: TextEncoder,
}
"""What encodes the events of each type of stream."""


class SocketEncoder(Protocol):
    """Encodes the events of one stream as WebSocket messages, one each."""

    def __call__(self, batch: Sequence[Record], first: int) -> list[bytes]: ...


class JsonSocketEncoder:
    def __init__(self, tag: Tag | None, model: str) -> None:
        self._tag = tag
        self._model = model
        head = b"{" if tag is None else b'{"id":' + literal(tag) + b","
        self._chunk = head + b'"type":"chunk","seq":%d,"model":' + literal(model) + b',"delta":%b}'

    def __call__(self, batch: Sequence[Record], first: int) -> list[bytes]:
        chunk = self._chunk
        return [
            chunk % (seq, to_json(record)) if type(record) is str else self._event(record, seq)
            for seq, record in enumerate(batch, first)
        ]

    def _event(self, record: Record, seq: int) -> bytes:
        return to_json(tagged(to_message(record, seq, self._model), self._tag))


class MsgpackSocketEncoder:
    def __init__(self, tag: Tag | None, model: str) -> None:
        self._tag = tag
        self._model = model

    def __call__(self, batch: Sequence[Record], first: int) -> list[bytes]:
        return [
            to_msgpack(tagged(to_message(record, seq, self._model), self._tag))
            for seq, record in enumerate(batch, first)
        ]


@dataclass(frozen=True)
class SocketFormat:
    """How one subprotocol writes: whether frames are binary, any message, and the events of a stream."""

    content_type: str
    binary: bool
    pack: Callable[[Any], bytes]
    events: Callable[[Tag | None, str], SocketEncoder]


SOCKET_FORMATS = {
    "forgeline.v1.json": SocketFormat(JSON, False, to_json, JsonSocketEncoder),
    "forgeline.v1.msgpack": SocketFormat(MSGPACK, True, to_msgpack, MsgpackSocketEncoder),
}
"""By subprotocol; the first is the default."""


def literal(value: Any) -> bytes:
    """A value as JSON, to stand in a template."""
    return to_json(value).replace(b"%", b"%%")
