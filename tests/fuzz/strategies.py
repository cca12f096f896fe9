"""Hypothesis strategies: valid and invalid requests, and valid bytes that were mutated."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgpack
from hypothesis import strategies as st

from tests.server.websocket.test_session import PNG

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.floats(), st.sampled_from([0, 1, -1, 0.1, 2, 2**31, 2**53, 1e308])
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT)


def nested_values(leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=8,
    )


JSON_VALUES = nested_values(SCALARS, TEXT)
PACKABLE = nested_values(
    st.one_of(
        SCALARS,
        st.binary(max_size=20),
        st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=9)),
        st.builds(msgpack.Timestamp, st.integers(0, 2**34 - 1), st.integers(0, 999_999_999)),
    ),
    st.one_of(TEXT, st.integers(-5, 5), st.binary(max_size=4)),
)

MODELS = st.sampled_from(["m", "n", "nobody", "", "%", "m" * 300])
FRAMES = st.lists(
    st.sampled_from(
        [base64.b64encode(PNG).decode(), "data:image/png;base64," + base64.b64encode(PNG).decode(), "", "AAAA"]
    )
    | TEXT,
    max_size=3,
)


def request_bodies(
    values: st.SearchStrategy[Any], **required: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    """Valid requests with any subset of fields, and the same with one field replaced by any value."""
    fields: dict[str, st.SearchStrategy[Any]] = {
        "frames": FRAMES,
        "media": FRAMES,
        "mediaType": st.sampled_from(["image", "video"]),
        "max_tokens": st.integers(1, 5000),
        "temperature": st.floats(0, 2),
        "system": TEXT,
        "top_p": st.floats(0, 1),
        "stop": st.lists(TEXT, max_size=5) | TEXT,
        "resumable": st.booleans(),
        "models": st.lists(MODELS, max_size=4),
    }
    valid = st.fixed_dictionaries(required, optional=fields)
    one_field_wrong = st.builds(
        lambda body, name, value: {**body, name: value}, valid, st.sampled_from([*fields, *required]) | TEXT, values
    )
    return valid | one_field_wrong


def websocket_messages(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Messages of the WebSocket protocol."""
    tags = st.sampled_from(["a", "b", 1, 2]) | values
    infer = request_bodies(values, op=st.just("infer"), id=tags, model=MODELS, text=TEXT)
    topics = st.lists(st.sampled_from(["jobs", "presets", "models"]) | values, max_size=3)
    others = st.fixed_dictionaries(
        {"op": st.sampled_from(["resume", "cancel", "subscribe", "unsubscribe", "tail"]) | values, "id": tags},
        optional={
            "stream_id": TEXT | values,
            "after": st.integers(-3, 9) | values,
            "target": tags,
            "topics": topics,
            "feed": TEXT | values,
        },
    )
    return infer | others


@st.composite
def mutated_bytes(draw: st.DrawFn, valid: st.SearchStrategy[bytes]) -> bytes:
    """Bytes with up to three changes: replaced, deleted, duplicated or inserted."""
    data = bytearray(draw(valid))
    for _ in range(draw(st.integers(0, 3))):
        position = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 3)):
            case 0:
                data[position : position + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                del data[position : position + draw(st.integers(1, 8))]
            case 2:
                data[position:position] = data[position : position + draw(st.integers(1, 40))]
            case _:
                data[position:position] = draw(st.binary(max_size=6))
    return bytes(data)


def to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def to_msgpack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


JSON_BODIES = (
    mutated_bytes(request_bodies(JSON_VALUES, text=TEXT).map(to_json))
    | JSON_VALUES.map(to_json)
    | st.binary(max_size=60)
)
MSGPACK_BODIES = (
    mutated_bytes(request_bodies(PACKABLE, text=TEXT).map(to_msgpack))
    | PACKABLE.map(to_msgpack)
    | st.binary(max_size=60)
)
JSON_MESSAGES = (
    mutated_bytes(websocket_messages(JSON_VALUES).map(to_json)).map(lambda data: data.decode(errors="replace"))
    | websocket_messages(JSON_VALUES).map(json.dumps)
    | TEXT
)
MSGPACK_MESSAGES = mutated_bytes(websocket_messages(PACKABLE).map(to_msgpack)) | st.binary(max_size=60)
