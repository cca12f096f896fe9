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
from pipeline.streams import Complete, Delta, Record, Start
from server.wire import ENCODERS, MSGPACK_EVENTS, NDJSON, SSE, TEXT, to_message
from tests.serving import sse_events

ALL: Sequence[Record] = [
    Start("s1", {"text": "hi"}, ("m",)),
    "a chunk",
    Delta("other", "its chunk"),
    Result("m", {"time": "now", "response": {"id": "1"}}),
    Failure("m", RateLimited("Not now, please.", retry_after=2.0)),
    Complete(),
]
EXPECTED: list[dict[str, Any]] = [
    {"type": "start", "seq": 5, "stream_id": "s1", "request": {"text": "hi"}, "models": ["m"]},
    {"type": "chunk", "seq": 6, "model": "m", "delta": "a chunk"},
    {"type": "chunk", "seq": 7, "model": "other", "delta": "its chunk"},
    {"type": "result", "seq": 8, "model": "m", "time": "now", "response": {"id": "1"}},
    {"type": "error", "seq": 9, "model": "m", "error": "Not now, please.", "code": "rate_limited", "retry_after": 2.0},
    {"type": "complete", "seq": 10},
]


def test_every_record_is_its_event_numbered_from_the_batchs_place() -> None:
    told = [to_message(record, seq, "m") for seq, record in enumerate(ALL, 5)]
    assert json.loads(json.dumps(told)) == EXPECTED


def test_sse_ndjson_and_messagepack_tell_the_same() -> None:
    assert sse_events(ENCODERS[SSE]("m").encode(ALL, 5)) == EXPECTED
    assert [json.loads(line) for line in ENCODERS[NDJSON]("m").encode(ALL, 5).splitlines()] == EXPECTED
    assert list(msgpack.Unpacker(io.BytesIO(ENCODERS[MSGPACK_EVENTS]("m").encode(ALL, 5)))) == EXPECTED


def test_bare_text_is_the_chunks_alone() -> None:
    assert ENCODERS[TEXT]("m").encode(["a", Complete(), "ü"], 0) == "aü".encode()


def test_a_heartbeat_has_neither_seq_nor_id_and_none_in_bare_text() -> None:
    assert sse_events(ENCODERS[SSE]("m").heartbeat) == [{"type": "heartbeat"}]
    assert json.loads(ENCODERS[NDJSON]("m").heartbeat) == {"type": "heartbeat"}
    assert msgpack.unpackb(ENCODERS[MSGPACK_EVENTS]("m").heartbeat) == {"type": "heartbeat"}
    assert ENCODERS[TEXT]("m").heartbeat == b""


@given(st.lists(st.text(max_size=20), max_size=5), st.sampled_from(["m", "50%d", 'a"b', "%s%%"]))
def test_any_text_comes_back_from_every_format(texts: list[str], model: str) -> None:
    sse = sse_events(ENCODERS[SSE](model).encode(texts, 0))
    lines = [json.loads(line) for line in ENCODERS[NDJSON](model).encode(texts, 0).split(b"\n")[:-1]]
    maps = list(msgpack.Unpacker(io.BytesIO(ENCODERS[MSGPACK_EVENTS](model).encode(texts, 0))))
    assert sse == lines == maps
    assert [event["delta"] for event in sse] == texts
    assert {event["model"] for event in sse} <= {model}
    assert ENCODERS[TEXT](model).encode(texts, 0) == "".join(texts).encode()
