"""Events as bytes: every format tells the same, and no text breaks its framing."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import RateLimited
from pipeline.messages import Failure, Result, ToolCallDelta
from pipeline.streams import ModelText, StreamComplete, StreamRecord, StreamStart
from server.inference.encoders import (
    EVENT_ENCODERS,
    MSGPACK_EVENTS,
    NDJSON,
    SOCKET_FORMATS,
    SSE,
    TEXT,
    JsonSocketEncoder,
    SseEncoder,
    to_event,
    to_json,
)
from server.inference.response_types import ChunkEvent
from tests.pipeline.factories import make_envelope
from tests.running_server import parse_sse

ENVELOPE = make_envelope()
ALL: Sequence[StreamRecord] = [
    StreamStart("s1", ENVELOPE["request"], ("m",)),
    "a chunk",
    ModelText("other", "its chunk"),
    ToolCallDelta(0, "call_1", "weather", '{"city":'),
    Result("m", ENVELOPE),
    Failure("m", RateLimited("Not now, please.", retry_after=2.0)),
    StreamComplete(),
]
TOOL_CALL = {"index": 0, "id": "call_1", "name": "weather", "arguments": '{"city":'}
EXPECTED: list[dict[str, Any]] = [
    {"type": "start", "seq": 5, "stream_id": "s1", "request": ENVELOPE["request"], "models": ["m"]},
    {"type": "chunk", "seq": 6, "model": "m", "delta": "a chunk"},
    {"type": "chunk", "seq": 7, "model": "other", "delta": "its chunk"},
    {"type": "chunk", "seq": 8, "model": "m", "delta": "", "tool_call": TOOL_CALL},
    {"type": "result", "seq": 9, "model": "m", **ENVELOPE},
    {"type": "error", "seq": 10, "model": "m", "error": "Not now, please.", "code": "rate_limited", "retry_after": 2.0},
    {"type": "complete", "seq": 11},
]
NAMES = st.sampled_from(["m", "50%d", 'a"b', "%s%%"])
SEQS = st.integers(0, 2**53 - 1)


def test_encoder_numbers_events_from_batch_position() -> None:
    events = [to_event(record, seq, "m") for seq, record in enumerate(ALL, 5)]
    assert json.loads(to_json(events)) == EXPECTED


@pytest.mark.parametrize("protocol", SOCKET_FORMATS)
def test_encoder_of_socket_puts_tag_before_same_events(protocol: str) -> None:
    socket_format = SOCKET_FORMATS[protocol]
    decode = msgpack.unpackb if socket_format.binary else json.loads
    assert [decode(message) for message in socket_format.events("a", "m")(ALL, 5)] == [
        {"id": "a", **event} for event in EXPECTED
    ]
    assert [decode(message) for message in socket_format.events(None, "m")(ALL, 5)] == EXPECTED


@settings(deadline=None)
@given(st.text(max_size=20), SEQS, NAMES)
def test_encoder_templates_write_what_chunk_event_encodes_to(text: str, seq: int, model: str) -> None:
    event = to_json(ChunkEvent(seq, model, text))
    assert SseEncoder(model).encode([text], seq) == b"id: %d\nevent: chunk\ndata: %b\n\n" % (seq, event)
    assert JsonSocketEncoder(None, model)([text], seq) == [event]
    assert JsonSocketEncoder(7, model)([text], seq) == [b'{"id":7,' + event[1:]]


def test_encoder_formats_are_equivalent() -> None:
    assert parse_sse(EVENT_ENCODERS[SSE]("m").encode(ALL, 5)) == EXPECTED
    assert [json.loads(line) for line in EVENT_ENCODERS[NDJSON]("m").encode(ALL, 5).splitlines()] == EXPECTED
    assert list(msgpack.Unpacker(io.BytesIO(EVENT_ENCODERS[MSGPACK_EVENTS]("m").encode(ALL, 5)))) == EXPECTED


def test_encoder_text_has_only_chunks() -> None:
    assert EVENT_ENCODERS[TEXT]("m").encode(["a", StreamComplete(), "ü"], 0) == "aü".encode()


def test_encoder_heartbeat_has_no_seq_or_id() -> None:
    assert parse_sse(EVENT_ENCODERS[SSE]("m").heartbeat) == [{"type": "heartbeat"}]
    assert json.loads(EVENT_ENCODERS[NDJSON]("m").heartbeat) == {"type": "heartbeat"}
    assert msgpack.unpackb(EVENT_ENCODERS[MSGPACK_EVENTS]("m").heartbeat) == {"type": "heartbeat"}
    assert EVENT_ENCODERS[TEXT]("m").heartbeat == b""


@given(st.lists(st.text(max_size=20), max_size=5), NAMES)
def test_encoder_round_trips_any_text(texts: list[str], model: str) -> None:
    sse = parse_sse(EVENT_ENCODERS[SSE](model).encode(texts, 0))
    lines = [json.loads(line) for line in EVENT_ENCODERS[NDJSON](model).encode(texts, 0).split(b"\n")[:-1]]
    maps = list(msgpack.Unpacker(io.BytesIO(EVENT_ENCODERS[MSGPACK_EVENTS](model).encode(texts, 0))))
    assert sse == lines == maps
    assert [event["delta"] for event in sse] == texts
    assert {event["model"] for event in sse} <= {model}
    assert EVENT_ENCODERS[TEXT](model).encode(texts, 0) == "".join(texts).encode()
