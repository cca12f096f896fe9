"""What is thrown at the server: right requests, wrong ones, and bytes that were right before they were mutated."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgpack
from hypothesis import strategies as st

from tests.server.test_socket import PNG

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.floats(), st.sampled_from([0, 1, -1, 0.1, 2, 2**31, 2**53, 1e308])
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT)


def nested(leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=8,
    )


JSON_VALUES = nested(SCALARS, TEXT)
PACKABLE = nested(
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


def requests(values: st.SearchStrategy[Any], **required: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Requests of which each field may be there, right, or anything."""
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
    right = st.fixed_dictionaries(required, optional=fields)
    one_wrong = st.builds(
        lambda body, name, value: {**body, name: value}, right, st.sampled_from([*fields, *required]) | TEXT, values
    )
    return right | one_wrong


def operations(values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Messages to a socket."""
    tags = st.sampled_from(["a", "b", 1, 2]) | values
    infer = requests(values, op=st.just("infer"), id=tags, model=MODELS, text=TEXT)
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
def mutated(draw: st.DrawFn, right: st.SearchStrategy[bytes]) -> bytes:
    """The bytes with a few of them changed, taken out, doubled, or put in."""
    data = bytearray(draw(right))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 3)):
            case 0:
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1:
                del data[at : at + draw(st.integers(1, 8))]
            case 2:
                data[at:at] = data[at : at + draw(st.integers(1, 40))]
            case _:
                data[at:at] = draw(st.binary(max_size=6))
    return bytes(data)


def to_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def to_msgpack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


JSON_BODIES = mutated(requests(JSON_VALUES, text=TEXT).map(to_json)) | JSON_VALUES.map(to_json) | st.binary(max_size=60)
MSGPACK_BODIES = (
    mutated(requests(PACKABLE, text=TEXT).map(to_msgpack)) | PACKABLE.map(to_msgpack) | st.binary(max_size=60)
)
JSON_MESSAGES = (
    mutated(operations(JSON_VALUES).map(to_json)).map(lambda data: data.decode(errors="replace"))
    | operations(JSON_VALUES).map(json.dumps)
    | TEXT
)
MSGPACK_MESSAGES = mutated(operations(PACKABLE).map(to_msgpack)) | st.binary(max_size=60)
