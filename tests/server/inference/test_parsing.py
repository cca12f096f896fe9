"""What a body holds, checked field by field: contract.md 1."""

from __future__ import annotations

import time
from typing import Any

import msgpack
import pytest

from pipeline.errors import InvalidRequest
from server.errors import UnsupportedMediaType
from server.inference.parsing import ParsedRequest, RequestContext, decode_body, parse_inference, parse_multi_inference

JSON, PACKED = "application/json", "application/msgpack"
CONTEXT = RequestContext("id-1", "", time.monotonic())


def parse(value: Any) -> ParsedRequest:
    return parse_inference(value, CONTEXT, 3)


def error_message_of(value: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        parse(value)
    return caught.value.message


def test_parsing_defaults_are_documented_ones() -> None:
    made = parse({"text": "hi"})
    request = made.request
    assert (request.parameters.max_tokens, request.parameters.temperature) == (1024, 0.1)
    assert (request.parameters.top_p, request.parameters.stop, request.system) == (None, (), None)
    assert (request.media_type, request.request_id, request.received_at) == ("image", "id-1", CONTEXT.received_at)
    assert not made.resumable


def test_parsing_reads_every_field() -> None:
    fields = {"max_tokens": 1, "temperature": 2, "top_p": 0, "stop": ["a", "b"], "system": "s", "mediaType": "video"}
    request = parse({"text": "hi", "frames": ["x"], "resumable": True, **fields}).request
    assert (request.parameters.max_tokens, request.parameters.temperature) == (1, 2.0)
    assert (request.parameters.top_p, request.parameters.stop) == (0.0, ("a", "b"))
    assert (request.system, request.media_type, len(request.messages[0].parts)) == ("s", "video", 2)


def test_parsing_stop_may_be_string() -> None:
    assert parse({"text": "hi", "stop": "END"}).request.parameters.stop == ("END",)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("text", None, "a string"),
        ("text", 1, "a string"),
        ("text", ["hi"], "a string"),
        ("text", "", "frames"),
        ("frames", "x", "a list"),
        ("frames", {"0": "x"}, "a list"),
        ("frames", [1], "base64"),
        ("frames", [None], "base64"),
        ("frames", [["x"]], "base64"),
        ("frames", ["x"] * 4, "at most 3"),
        ("media", "x", "a list"),
        ("mediaType", "audio", "'image', 'video'"),
        ("mediaType", None, "a string"),
        ("max_tokens", True, "an integer"),
        ("max_tokens", "5", "an integer"),
        ("max_tokens", 1.5, "an integer"),
        ("max_tokens", 0, ">= 1"),
        ("max_tokens", -1, ">= 1"),
        ("max_tokens", None, "an integer"),
        ("temperature", True, "a number"),
        ("temperature", "0.5", "a number"),
        ("temperature", 2.1, "<= 2"),
        ("temperature", -0.1, ">= 0"),
        ("temperature", float("nan"), ""),
        ("temperature", float("inf"), ""),
        ("top_p", 1.1, "<= 1"),
        ("top_p", float("nan"), ""),
        ("top_p", False, "a number"),
        ("system", 1, "a string"),
        ("stop", ["a"] * 5, "4"),
        ("stop", [1], "a string"),
        ("stop", 1, "a string"),
        ("resumable", 1, "true or false"),
        ("resumable", "true", "true or false"),
        ("models", ["a"], "unknown field"),
        ("temprature", 1, "unknown field"),
        ("media_type", "image", "unknown field"),
    ],
)
def test_parsing_wrong_field_is_named_with_expected_type(field: str, value: Any, expected: str) -> None:
    error_message = error_message_of({"text": "hi", field: value})
    assert error_message.startswith(field)
    assert expected in error_message
    assert error_message.endswith(".")


def test_parsing_missing_text_is_error() -> None:
    assert error_message_of({}) == "text: this field is required."


def test_parsing_unknown_field_lists_known_fields() -> None:
    assert "max_tokens, temperature, system" in error_message_of({"text": "hi", "tokens": 1})


def test_parsing_frames_and_media_are_aliases() -> None:
    assert "not both" in error_message_of({"text": "hi", "frames": [], "media": []})
    assert len(parse({"text": "hi", "media": ["x"]}).request.messages[0].parts) == 2


@pytest.mark.parametrize("value", [None, [], "hi", 1, True])
def test_parsing_body_must_be_mapping(value: Any) -> None:
    assert "a mapping" in error_message_of(value)


@pytest.mark.parametrize("tokens", [2**53, 2**63, 2**64, 10**30])
def test_parsing_number_beyond_javascript_is_error(tokens: int) -> None:
    with pytest.raises(InvalidRequest, match="max_tokens"):
        parse(decode_body(JSON, b'{"text":"a","max_tokens":%d}' % tokens))


def nested(levels: int) -> bytes:
    return b"\x91" * levels + b"\xc0"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x81",
        b"\x81\xa4text",
        b"\xdb\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        nested(500),
        nested(10_000),
        b"\x81\xa4text" + nested(10_000),
        msgpack.packb({"text": "a"}) + b"\xc0",
        msgpack.packb({1: "a"}),
        msgpack.packb({None: "a"}),
        msgpack.packb({b"text": "a"}),
        msgpack.packb({"text": b"a"}),
        msgpack.packb({"text": msgpack.Timestamp(1)}),
        msgpack.packb({"text": msgpack.ExtType(4, b"x")}),
        msgpack.packb({"text": "a", "frames": [msgpack.ExtType(4, b"x")]}),
        msgpack.packb({"text": "a", "temperature": float("nan")}),
        b"\x81\xa4text\xa1\xff",
        b"\x81\xa4text\xa3\xed\xa0\x80",
        b"\xd7\xff" + b"\xff" * 8,
    ],
)
def test_parsing_invalid_messagepack_is_error(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        parse(decode_body(PACKED, body))


@pytest.mark.parametrize("kind", ["", "text/json", "application/x-msgpack", "multipart/form-data"])
def test_parsing_other_content_type_is_error(kind: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        decode_body(kind, b"{}")


def test_parsing_models_are_one_to_sixteen_distinct_names() -> None:
    made = parse_multi_inference({"text": "hi", "models": ["b", "a"]}, CONTEXT, 3)
    assert made.models == ("b", "a")
    for models in ([], ["a", "a"], [f"m{n}" for n in range(17)], "a", None, [1]):
        with pytest.raises(InvalidRequest, match="models"):
            parse_multi_inference({"text": "hi", "models": models}, CONTEXT, 3)
    with pytest.raises(InvalidRequest, match="models: this field is required"):
        parse_multi_inference({"text": "hi"}, CONTEXT, 3)
