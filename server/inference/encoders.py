"""Encoders of events and bodies: JSON, MessagePack, SSE, NDJSON. Events are encoded a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import msgspec
from msgspec import Struct

from pipeline.messages import Failure, Result, ToolCallDelta
from pipeline.streams import ModelText, StreamComplete, StreamRecord, StreamStart
from server.errors import error_fields
from server.inference.response_types import (
    ChunkEvent,
    CompleteEvent,
    ErrorEvent,
    HeartbeatEvent,
    ResultEvent,
    StartEvent,
    StreamEvent,
    ToolCallChunk,
)

JSON = "application/json"
MSGPACK = "application/msgpack"
SSE = "text/event-stream"
NDJSON = "application/x-ndjson"
MSGPACK_EVENTS = "application/vnd.forgeline.events+msgpack"
TEXT = "text/plain"

Tag = str | int
"""A client's own id for an operation of its socket."""

to_json: Callable[[Any], bytes] = msgspec.json.Encoder().encode


to_msgpack: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode


BODY_ENCODERS: dict[str, Callable[[Any], bytes]] = {JSON: to_json, MSGPACK: to_msgpack}
"""The encoder of each type of body."""


def to_event(record: StreamRecord, seq: int, model: str) -> StreamEvent:
    """A record as an event. `model` is the stream's, where it has only one."""
    event: StreamEvent
    match record:
        case str():
            event = ChunkEvent(seq, model, record)
        case ModelText(model=of, text=text):
            event = ChunkEvent(seq, of, text)
        case ToolCallDelta():  # its delta is empty: all deltas joined are the result's text
            event = ChunkEvent(seq, model, "", ToolCallChunk(record.index, record.id, record.name, record.arguments))
        case Result(model=of, envelope=envelope):
            event = ResultEvent(
                seq, of, envelope["time"], envelope["request"], envelope["response"], envelope["metadata"]
            )
        case Failure():
            event = ErrorEvent(seq=seq, model=record.model, **error_fields(record.error))
        case StreamStart(stream_id, request, models):
            event = StartEvent(seq, stream_id, request, models)
        case StreamComplete():
            event = CompleteEvent(seq)
    return event


def type_of(event: Struct) -> str:
    """An event's field `type`."""
    return str(event.__struct_config__.tag)


def with_tag(message: Mapping[str, Any] | Struct, tag: Tag | None) -> Any:
    """The message with its operation's id; without one where a socket carries one operation at a time."""
    if tag is None:
        return message
    return {"id": tag, **(msgspec.to_builtins(message) if isinstance(message, Struct) else message)}


HEARTBEAT: Final = HeartbeatEvent()


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
            b'id: %d\nevent: chunk\ndata: {"type":"chunk","seq":%d,"model":'
            + template_literal(model)
            + b',"delta":%b}\n\n'
        )

    def encode(self, batch: Sequence[StreamRecord], first: int) -> bytes:
        chunk = self._chunk  # a template: faster than to encode a dict
        return b"".join(
            [
                chunk % (seq, seq, to_json(record)) if type(record) is str else self._event(record, seq)
                for seq, record in enumerate(batch, first)
            ]
        )

    def _event(self, record: StreamRecord, seq: int) -> bytes:
        event = to_event(record, seq, self._model)
        return b"id: %d\nevent: %b\ndata: %b\n\n" % (seq, type_of(event).encode(), to_json(event))


class NdjsonEncoder:
    """One event a line."""

    heartbeat = to_json(HEARTBEAT) + b"\n"

    def __init__(self, model: str) -> None:
        self._model = model

    def encode(self, batch: Sequence[StreamRecord], first: int) -> bytes:
        return b"".join(to_json(to_event(record, seq, self._model)) + b"\n" for seq, record in enumerate(batch, first))


class MsgpackEncoder:
    """A sequence of maps, one after the other."""

    heartbeat = to_msgpack(HEARTBEAT)

    def __init__(self, model: str) -> None:
        self._model = model

    def encode(self, batch: Sequence[StreamRecord], first: int) -> bytes:
        return b"".join(to_msgpack(to_event(record, seq, self._model)) for seq, record in enumerate(batch, first))


class TextEncoder:
    """The bare text, for `curl -N`."""

    heartbeat = b""

    def __init__(self, model: str) -> None:
        pass

    def encode(self, batch: Sequence[StreamRecord], first: int) -> bytes:
        return "".join(record for record in batch if isinstance(record, str)).encode()


EVENT_ENCODERS: dict[str, Callable[[str], Encoder[StreamRecord]]] = {
    SSE: SseEncoder,
    NDJSON: NdjsonEncoder,
    MSGPACK_EVENTS: MsgpackEncoder,
    TEXT: TextEncoder,
}
"""The encoder of each type of event stream."""


class SocketEncoder(Protocol):
    """Encodes the events of one stream as WebSocket messages, one each."""

    def __call__(self, batch: Sequence[StreamRecord], first: int) -> list[bytes]: ...


class JsonSocketEncoder:
    def __init__(self, tag: Tag | None, model: str) -> None:
        self._tag = tag
        self._model = model
        head = b"{" if tag is None else b'{"id":' + template_literal(tag) + b","
        self._chunk = head + b'"type":"chunk","seq":%d,"model":' + template_literal(model) + b',"delta":%b}'

    def __call__(self, batch: Sequence[StreamRecord], first: int) -> list[bytes]:
        chunk = self._chunk
        return [
            chunk % (seq, to_json(record)) if type(record) is str else self._event(record, seq)
            for seq, record in enumerate(batch, first)
        ]

    def _event(self, record: StreamRecord, seq: int) -> bytes:
        return to_json(with_tag(to_event(record, seq, self._model), self._tag))


class MsgpackSocketEncoder:
    def __init__(self, tag: Tag | None, model: str) -> None:
        self._tag = tag
        self._model = model

    def __call__(self, batch: Sequence[StreamRecord], first: int) -> list[bytes]:
        return [
            to_msgpack(with_tag(to_event(record, seq, self._model), self._tag))
            for seq, record in enumerate(batch, first)
        ]


@dataclass(frozen=True)
class SocketFormat:
    """The format of one subprotocol. `pack` encodes any message; `events` makes the encoder of a stream."""

    content_type: str
    binary: bool
    pack: Callable[[Any], bytes]
    events: Callable[[Tag | None, str], SocketEncoder]


SOCKET_FORMATS = {
    "forgeline.v1.json": SocketFormat(JSON, False, to_json, JsonSocketEncoder),
    "forgeline.v1.msgpack": SocketFormat(MSGPACK, True, to_msgpack, MsgpackSocketEncoder),
}
"""By subprotocol; the first is the default."""


def template_literal(value: Any) -> bytes:
    """A value as JSON, escaped for a template of `bytes % …`."""
    return to_json(value).replace(b"%", b"%%")
