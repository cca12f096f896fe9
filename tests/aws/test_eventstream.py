"""Our event-stream framing is what stock botocore's decoder reads."""

from __future__ import annotations

import json

import pytest
from botocore.eventstream import ChecksumMismatch, EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from tests.aws import eventstream

TEXT = st.text(max_size=50)
HEADERS = st.dictionaries(st.text(min_size=1, max_size=60), TEXT, max_size=5)


@given(st.lists(st.tuples(HEADERS, st.binary(max_size=200)), max_size=5), st.integers(1, 40))
def test_encoded_messages_decode_for_every_split(messages: list[tuple[dict[str, str], bytes]], step: int) -> None:
    encoded = b"".join(eventstream.encode_message(headers, payload) for headers, payload in messages)
    buffer = EventStreamBuffer()
    read = []
    for position in range(0, len(encoded), step):
        buffer.add_data(encoded[position : position + step])
        read += [(message.headers, message.payload) for message in buffer]
    assert read == messages


@given(st.binary(max_size=50), st.data())
def test_message_with_changed_byte_fails_checksum(payload: bytes, data: st.DataObject) -> None:
    encoded = bytearray(eventstream.encode_event("chunk", payload))
    position = data.draw(st.integers(8, len(encoded) - 1))
    encoded[position] ^= data.draw(st.integers(1, 255))
    buffer = EventStreamBuffer()
    buffer.add_data(bytes(encoded))
    with pytest.raises(ChecksumMismatch):
        next(buffer)


def test_damaged_message_fails_checksum() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(eventstream.encode_event("chunk", b"abc", damaged=True))
    with pytest.raises(ChecksumMismatch):
        next(buffer)


def test_exception_message_has_member_and_fields() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(eventstream.encode_exception("throttlingException", {"message": "slow down"}))
    message = next(buffer)
    assert message.headers[":exception-type"] == "throttlingException"
    assert json.loads(message.payload) == {"message": "slow down"}
    assert message.to_response_dict()["status_code"] == 400
