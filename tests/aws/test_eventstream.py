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
def test_messages_come_back_as_they_were_however_they_are_split(
    messages: list[tuple[dict[str, str], bytes]], step: int
) -> None:
    coded = b"".join(eventstream.message(headers, payload) for headers, payload in messages)
    buffer = EventStreamBuffer()
    read = []
    for at in range(0, len(coded), step):
        buffer.add_data(coded[at : at + step])
        read += [(message.headers, message.payload) for message in buffer]
    assert read == messages


@given(st.binary(max_size=50), st.data())
def test_a_message_with_any_one_byte_changed_is_never_read_as_it_was(payload: bytes, data: st.DataObject) -> None:
    coded = bytearray(eventstream.event("chunk", payload))
    at = data.draw(st.integers(8, len(coded) - 1))
    coded[at] ^= data.draw(st.integers(1, 255))
    buffer = EventStreamBuffer()
    buffer.add_data(bytes(coded))
    with pytest.raises(ChecksumMismatch):
        next(buffer)


def test_a_damaged_message_fails_its_checksum() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(eventstream.event("chunk", b"abc", damaged=True))
    with pytest.raises(ChecksumMismatch):
        next(buffer)


def test_an_exception_names_its_member_and_carries_its_fields() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(eventstream.exception("throttlingException", {"message": "slow down"}))
    message = next(buffer)
    assert message.headers[":exception-type"] == "throttlingException"
    assert json.loads(message.payload) == {"message": "slow down"}
    assert message.to_response_dict()["status_code"] == 400
