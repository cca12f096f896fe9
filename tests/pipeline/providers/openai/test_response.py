"""The parser of chat responses: any format and any cut gives the whole response, or an error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from itertools import chain, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.envelope import StopReason
from pipeline.errors import InvalidRequest, ModelError, RateLimited, Unavailable
from pipeline.messages import Finish, Reasoning, ResponsePart, Usage
from pipeline.providers.openai import response
from pipeline.providers.openai.response import ChatResponseParser, read_chat_response
from tests.upstream import Piece, stream_bytes

FINAL_PARTS = [Finish("end_turn"), Usage(3, 2)]


def parse(blocks: Iterable[bytes], **parser: Any) -> list[ResponsePart]:
    """All parts of a response that arrives in these blocks."""
    remaining = [block for block in blocks if block]

    async def next_block() -> bytes:
        return remaining.pop(0) if remaining else b""

    async def parts() -> list[ResponsePart]:
        return [
            part async for batch in await read_chat_response(next_block, ChatResponseParser(**parser)) for part in batch
        ]

    return asyncio.run(parts())


def parse_or_none(stream: bytes) -> list[ResponsePart] | None:
    """The parts; None for a ModelError."""
    try:
        return parse([stream])
    except ModelError:
        return None


def stream_payload(pieces: list[Piece], **options: Any) -> bytes:
    return b"".join(piece for piece in stream_bytes(pieces, **options) if isinstance(piece, bytes))


def make_chunk(**choice: Any) -> dict[str, Any]:
    return {"choices": [choice]}


STREAM = stream_payload(["Grüße", ": 你好", b": ping\n\n", b"event: message\n", " 🙂"])
TEXT = ["Grüße", ": 你好", " 🙂"]


@pytest.mark.parametrize("sse", [True, False], ids=["sse", "bare lines"])
@pytest.mark.parametrize("done", [True, False], ids=["[DONE]", "no [DONE]"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_parse_accepts_all_stream_formats(sse: bool, done: bool, newline: str) -> None:
    stream = stream_payload(["Hello", " world"], sse=sse, done=done, newline=newline)
    assert parse([stream]) == ["Hello", " world", *FINAL_PARTS]


def test_parse_stream_split_in_two_at_any_byte() -> None:
    for position in range(len(STREAM) + 1):
        assert parse([STREAM[:position], STREAM[position:]]) == [*TEXT, *FINAL_PARTS], position


@given(st.lists(st.integers(0, len(STREAM)), max_size=40))
def test_parse_stream_split_into_many_blocks(cuts: list[int]) -> None:
    position = [0, *sorted(cuts), len(STREAM)]
    assert parse(STREAM[a:b] for a, b in pairwise(position)) == [*TEXT, *FINAL_PARTS]


def test_parse_stream_cut_at_any_byte_gives_whole_text_or_error() -> None:
    results = [result for position in range(len(STREAM)) if (result := parse_or_none(STREAM[:position])) is not None]
    assert len(results) < len(STREAM) / 2
    for *text, stop, usage in results:
        assert text == TEXT
        assert stop == Finish("end_turn")
        assert usage in {Usage(3, 2), Usage(None, None)}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=5), st.integers(1, 50))
def test_parse_keeps_any_text(texts: list[str], block: int) -> None:
    stream = stream_payload([*texts])
    assert parse(stream[position : position + block] for position in range(0, len(stream), block)) == [
        *texts,
        *FINAL_PARTS,
    ]


@given(st.binary(max_size=200).filter(lambda garbage: b"[DONE]" not in garbage))
def test_parse_garbage_is_model_error(garbage: bytes) -> None:
    with pytest.raises(ModelError):
        parse([garbage])


@pytest.mark.parametrize(
    "line", [b"<html>\n", b"data: {\n", b'data: {"choices": 7}\n', b'data: "\xff"\n', b"[" * 100_000 + b"\n"]
)
def test_parse_invalid_line_raises_after_text(line: bytes) -> None:
    chunks = ChatResponseParser().feed(stream_payload(["Hello"], finish_reason=None, usage=None, done=False) + line)
    assert next(chunks) == ["Hello"]
    with pytest.raises(ModelError, match="not a chunk"):
        next(chunks)


def test_parse_stream_without_finish_reason_is_model_error() -> None:
    with pytest.raises(ModelError, match="broke off"):
        parse([stream_payload(["Hello"], finish_reason=None, usage=None, done=False)])


def test_parse_done_without_finish_reason_is_other() -> None:
    assert parse([stream_payload(["Hello"], finish_reason=None, usage=None)]) == [
        "Hello",
        Finish("other"),
        Usage(None, None),
    ]


def test_parse_ignores_everything_after_done() -> None:
    assert parse([stream_payload(["Hello"]) + b"what is this\n"]) == ["Hello", *FINAL_PARTS]


def test_parse_finish_reason_in_chunk_with_text_keeps_text() -> None:
    last = make_chunk(delta={"content": "!"}, finish_reason="length")
    assert parse([stream_payload(["Hi", last], finish_reason=None)]) == ["Hi", "!", Finish("max_tokens"), Usage(3, 2)]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"finish_reason": "stop"}, "end_turn"),
        ({"finish_reason": "length"}, "max_tokens"),
        ({"finish_reason": "content_filter"}, "content_filter"),
        ({"finish_reason": "tool_calls"}, "tool_use"),
        ({"finish_reason": "never heard of"}, "other"),
        ({"finish_reason": "stop", "stop_reason": "END"}, "stop_sequence"),
        ({"finish_reason": "stop", "matched_stop": "END"}, "stop_sequence"),
        ({"finish_reason": "stop", "stop_reason": 151645}, "end_turn"),
        ({"finish_reason": "stop", "matched_stop": 151645}, "end_turn"),
        ({"finish_reason": "stop", "stop_reason": "not ours"}, "end_turn"),
    ],
)
def test_parse_maps_finish_reason(fields: dict[str, Any], reason: StopReason) -> None:
    assert Finish(reason) in parse(
        [stream_payload(["Hi", make_chunk(delta={}, **fields)], finish_reason=None)], stop_sequences=("END",)
    )


@pytest.mark.parametrize("reason", ["error", "abort"])
def test_parse_error_finish_reason_is_model_error(reason: str) -> None:
    with pytest.raises(ModelError, match="broke its answer off"):
        parse([stream_payload(["Hi"], finish_reason=reason)])


@pytest.mark.parametrize(
    "empty",
    [
        {"choices": []},
        {"choices": None},
        make_chunk(delta=None),
        make_chunk(delta={"content": None, "role": "assistant"}),
        make_chunk(delta={"content": ""}),
        make_chunk(delta={"tool_calls": []}),
        {"usage": None, "error": None},
        {"never": {"heard": ["of"]}},
    ],
)
def test_parse_skips_chunk_without_text(empty: dict[str, Any]) -> None:
    assert parse([stream_payload([empty, "Hi"])]) == ["Hi", *FINAL_PARTS]


def test_parse_yields_reasoning_once_apart_from_text() -> None:
    pieces: list[Piece] = [
        make_chunk(delta={"reasoning_content": "hm"}),
        make_chunk(delta={"reasoning": "well", "reasoning_content": "well"}),
        make_chunk(delta={"reasoning": "so", "content": "Yes"}),
    ]
    assert parse([stream_payload(pieces)]) == [Reasoning("hm"), Reasoning("well"), Reasoning("so"), "Yes", *FINAL_PARTS]


def test_parse_last_usage_counts() -> None:
    running = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    assert parse([stream_payload(["Hi", running])])[-1] == Usage(3, 2)


@pytest.mark.parametrize("indent", [None, 2])
def test_parse_json_object_is_not_streamed(indent: int | None) -> None:
    result = {"id": "x", "model": "y", "choices": [{"message": {"content": "Hi\n!"}, "finish_reason": "stop"}]}
    body = json.dumps(result, indent=indent).encode() + b"\n"
    parser = ChatResponseParser(may_be_json=True)
    batches = [batch for byte in body for batch in parser.feed(bytes([byte]))]
    assert [*chain(*batches, *parser.finish(), parser.final_parts())] == [
        "Hi\n!",
        Finish("end_turn"),
        Usage(None, None),
    ]
    assert (parser.id, parser.model, parser.streamed) == ("x", "y", False)


@pytest.mark.parametrize("sse", [True, False])
def test_parse_stream_with_json_content_type_is_streamed(sse: bool) -> None:
    stream = stream_payload(["Hello", " world"], sse=sse, done=sse)
    parser = ChatResponseParser(may_be_json=True)
    assert list(parser.feed(stream)) == [["Hello", " world"]]
    assert parser.streamed


def test_parse_cut_json_object_is_model_error() -> None:
    body = json.dumps({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}, indent=1).encode()
    for position in range(len(body)):
        with pytest.raises(ModelError):
            parse([body[:position]], may_be_json=True)


def test_parse_line_over_limit_is_model_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response, "MAX_LINE_BYTES", 1000)
    with pytest.raises(ModelError, match="more than 1000 bytes"):
        parse([b"data: " + b"x" * 600, b"x" * 600, b"x" * 600])


@pytest.mark.parametrize(
    ("error", "expected", "message"),
    [
        ({"message": "out of memory", "type": "InternalServerError", "code": 500}, ModelError, "out of memory"),
        ("the backend is gone", ModelError, "the backend is gone"),
        ({"message": "slow down", "type": "rate_limit_error"}, RateLimited, "slow down"),
        ({"message": "slow down", "code": "rate_limit_exceeded"}, RateLimited, "slow down"),
        ({"message": "too long", "type": "x", "code": "context_length_exceeded"}, InvalidRequest, "too long"),
        ({"message": "too long", "type": "BadRequestError", "code": 400}, InvalidRequest, "too long"),
        ({"message": "busy", "type": "overloaded_error"}, Unavailable, "busy"),
        ({"message": "own code", "code": 302}, ModelError, "own code"),
        ({"message": "odd", "type": ["list"], "code": {"a": 1}}, ModelError, "odd"),
        ({"unheard": "of"}, ModelError, "failed"),
    ],
)
def test_parse_error_chunk_has_class_and_upstream_message(error: Any, expected: type[Exception], message: str) -> None:
    with pytest.raises(expected, match=message):
        parse([stream_payload(["Hi", {"error": error}])])


def test_parse_error_at_top_level() -> None:
    with pytest.raises(InvalidRequest, match="too many tokens"):
        parse(
            [
                stream_payload(
                    [{"object": "error", "message": "too many tokens", "type": "BadRequestError", "code": 400}]
                )
            ]
        )


def test_parse_undecodable_error_chunk_is_not_an_end() -> None:
    line = b'data: {"object": "error", "message": "zu viel f\xc3", "code": 400}\n\ndata: [DONE]\n\n'
    with pytest.raises(ModelError):
        parse([stream_payload(["Hello"], finish_reason=None, usage=None, done=False) + line])


def test_parse_removes_secret_from_upstream_message() -> None:
    with pytest.raises(ModelError) as caught:
        parse([stream_payload([{"error": f"key s3cret is {'bad' * 1000}"}])], secret="s3cret")  # noqa: S106 - made up
    assert "s3cret" not in str(caught.value)
    assert len(str(caught.value)) < 600
