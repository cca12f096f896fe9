"""Events as bytes: every format tells the same, and no text breaks its framing."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import RateLimited
from pipeline.messages import Failure, Result
from pipeline.streams import ModelText, StreamComplete, StreamRecord, StreamStart
from server.inference.encoders import EVENT_ENCODERS, MSGPACK_EVENTS, NDJSON, SSE, TEXT, to_event
from tests.running_server import parse_sse

ALL: Sequence[StreamRecord] = [
    StreamStart("s1", {"text": "hi"}, ("m",)),
    "a chunk",
    ModelText("other", "its chunk"),
    Result("m", {"time": "now", "response": {"id": "1"}}),
    Failure("m", RateLimited("Not now, please.", retry_after=2.0)),
    StreamComplete(),
]
EXPECTED: list[dict[str, Any]] = [
    {"type": "start", "seq": 5, "stream_id": "s1", "request": {"text": "hi"}, "models": ["m"]},
    {"type": "chunk", "seq": 6, "model": "m", "delta": "a chunk"},
    {"type": "chunk", "seq": 7, "model": "other", "delta": "its chunk"},
    {"type": "result", "seq": 8, "model": "m", "time": "now", "response": {"id": "1"}},
    {"type": "error", "seq": 9, "model": "m", "error": "Not now, please.", "code": "rate_limited", "retry_after": 2.0},
    {"type": "complete", "seq": 10},
]


def test_encoder_numbers_events_from_batch_position() -> None:
    expected = [to_event(record, seq, "m") for seq, record in enumerate(ALL, 5)]
    assert json.loads(json.dumps(expected)) == EXPECTED


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


@given(st.lists(st.text(max_size=20), max_size=5), st.sampled_from(["m", "50%d", 'a"b', "%s%%"]))
def test_encoder_round_trips_any_text(texts: list[str], model: str) -> None:
    sse = parse_sse(EVENT_ENCODERS[SSE](model).encode(texts, 0))
    lines = [json.loads(line) for line in EVENT_ENCODERS[NDJSON](model).encode(texts, 0).split(b"\n")[:-1]]
    maps = list(msgpack.Unpacker(io.BytesIO(EVENT_ENCODERS[MSGPACK_EVENTS](model).encode(texts, 0))))
    assert sse == lines == maps
    assert [event["delta"] for event in sse] == texts
    assert {event["model"] for event in sse} <= {model}
    assert EVENT_ENCODERS[TEXT](model).encode(texts, 0) == "".join(texts).encode()
