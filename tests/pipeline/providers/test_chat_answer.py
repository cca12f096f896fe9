"""The reader of answers: however they are cut and written, the whole answer comes out, or an error."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from itertools import chain, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InvalidRequest, ModelError, RateLimited, Unavailable
from pipeline.messages import Part, Reasoning, Stop, StopReason, Usage
from pipeline.providers import chat_answer
from pipeline.providers.chat_answer import AnswerReader, begin_answer
from tests.upstream import Piece, stream_bytes

ENDED = [Stop("end_turn"), Usage(3, 2)]


def read(blocks: Iterable[bytes], **reader: Any) -> list[Part]:
    """All parts of an answer that comes in these blocks."""
    waiting = [block for block in blocks if block]

    async def next_block() -> bytes:
        return waiting.pop(0) if waiting else b""

    async def parts() -> list[Part]:
        return [part async for batch in await begin_answer(next_block, AnswerReader(**reader)) for part in batch]

    return asyncio.run(parts())


def read_or_none(stream: bytes) -> list[Part] | None:
    """None where it is a model error."""
    try:
        return read([stream])
    except ModelError:
        return None


def joined(pieces: list[Piece], **how: Any) -> bytes:
    return b"".join(piece for piece in stream_bytes(pieces, **how) if isinstance(piece, bytes))


def chunk(**choice: Any) -> dict[str, Any]:
    return {"choices": [choice]}


RECORDED = joined(["Grüße", ": 你好", b": ping\n\n", b"event: message\n", " 🙂"])
TEXT = ["Grüße", ": 你好", " 🙂"]


@pytest.mark.parametrize("sse", [True, False], ids=["sse", "bare lines"])
@pytest.mark.parametrize("done", [True, False], ids=["[DONE]", "no [DONE]"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_reads_every_way_of_writing_a_stream(sse: bool, done: bool, newline: str) -> None:
    stream = joined(["Hello", " world"], sse=sse, done=done, newline=newline)
    assert read([stream]) == ["Hello", " world", *ENDED]


def test_a_stream_split_in_two_anywhere_gives_the_same() -> None:
    for at in range(len(RECORDED) + 1):
        assert read([RECORDED[:at], RECORDED[at:]]) == [*TEXT, *ENDED], at


@given(st.lists(st.integers(0, len(RECORDED)), max_size=40))
def test_a_stream_split_into_many_blocks_gives_the_same(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(RECORDED)]
    assert read(RECORDED[a:b] for a, b in pairwise(at)) == [*TEXT, *ENDED]


def test_a_stream_cut_anywhere_gives_the_whole_text_or_an_error() -> None:
    answers = [answer for at in range(len(RECORDED)) if (answer := read_or_none(RECORDED[:at])) is not None]
    assert len(answers) < len(RECORDED) / 2
    for *text, stop, usage in answers:
        assert text == TEXT
        assert stop == Stop("end_turn")
        assert usage in {Usage(3, 2), Usage(None, None)}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=5), st.integers(1, 50))
def test_any_text_comes_out_as_it_was_sent(texts: list[str], block: int) -> None:
    stream = joined([*texts])
    assert read(stream[at : at + block] for at in range(0, len(stream), block)) == [*texts, *ENDED]


@given(st.binary(max_size=200).filter(lambda garbage: b"[DONE]" not in garbage))
def test_garbage_is_a_model_error_and_never_anything_else(garbage: bytes) -> None:
    with pytest.raises(ModelError):
        read([garbage])


@pytest.mark.parametrize(
    "line", [b"<html>\n", b"data: {\n", b'data: {"choices": 7}\n', b'data: "\xff"\n', b"[" * 100_000 + b"\n"]
)
def test_a_line_that_is_no_chunk_is_an_error_after_the_text_before_it(line: bytes) -> None:
    chunks = AnswerReader().feed(joined(["Hello"], finish=None, usage=None, done=False) + line)
    assert next(chunks) == ["Hello"]
    with pytest.raises(ModelError, match="not a chunk"):
        next(chunks)


def test_a_stream_that_ends_without_a_finish_reason_is_cut() -> None:
    with pytest.raises(ModelError, match="broke off"):
        read([joined(["Hello"], finish=None, usage=None, done=False)])


def test_done_without_a_finish_reason_is_an_end_for_another_reason() -> None:
    assert read([joined(["Hello"], finish=None, usage=None)]) == ["Hello", Stop("other"), Usage(None, None)]


def test_nothing_after_done_is_read() -> None:
    assert read([joined(["Hello"]) + b"what is this\n"]) == ["Hello", *ENDED]


def test_a_finish_reason_in_the_chunk_with_the_last_text_loses_nothing() -> None:
    last = chunk(delta={"content": "!"}, finish_reason="length")
    assert read([joined(["Hi", last], finish=None)]) == ["Hi", "!", Stop("max_tokens"), Usage(3, 2)]


@pytest.mark.parametrize(
    ("said", "reason"),
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
def test_a_finish_reason_becomes_ours(said: dict[str, Any], reason: StopReason) -> None:
    assert Stop(reason) in read([joined(["Hi", chunk(delta={}, **said)], finish=None)], stops=("END",))


@pytest.mark.parametrize("reason", ["error", "abort"])
def test_an_answer_that_the_model_broke_off_is_an_error(reason: str) -> None:
    with pytest.raises(ModelError, match="broke its answer off"):
        read([joined(["Hi"], finish=reason)])


@pytest.mark.parametrize(
    "empty",
    [
        {"choices": []},
        {"choices": None},
        chunk(delta=None),
        chunk(delta={"content": None, "role": "assistant"}),
        chunk(delta={"content": ""}),
        chunk(delta={"tool_calls": []}),
        {"usage": None, "error": None},
        {"never": {"heard": ["of"]}},
    ],
)
def test_a_chunk_without_text_says_nothing(empty: dict[str, Any]) -> None:
    assert read([joined([empty, "Hi"])]) == ["Hi", *ENDED]


def test_reasoning_is_told_apart_and_once() -> None:
    pieces: list[Piece] = [
        chunk(delta={"reasoning_content": "hm"}),
        chunk(delta={"reasoning": "well", "reasoning_content": "well"}),
        chunk(delta={"reasoning": "so", "content": "Yes"}),
    ]
    assert read([joined(pieces)]) == [Reasoning("hm"), Reasoning("well"), Reasoning("so"), "Yes", *ENDED]


def test_the_last_of_several_usages_counts() -> None:
    running = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    assert read([joined(["Hi", running])])[-1] == Usage(3, 2)


@pytest.mark.parametrize("indent", [None, 2])
def test_one_whole_json_object_is_an_answer_that_did_not_come_in_pieces(indent: int | None) -> None:
    answer = {"id": "x", "model": "y", "choices": [{"message": {"content": "Hi\n!"}, "finish_reason": "stop"}]}
    body = json.dumps(answer, indent=indent).encode() + b"\n"
    reader = AnswerReader(whole_json=True)
    batches = [batch for byte in body for batch in reader.feed(bytes([byte]))]
    assert [*chain(*batches, *reader.end(), reader.ending())] == ["Hi\n!", Stop("end_turn"), Usage(None, None)]
    assert (reader.id, reader.model, reader.streamed) == ("x", "y", False)


@pytest.mark.parametrize("sse", [True, False])
def test_a_stream_that_calls_itself_json_is_still_a_stream(sse: bool) -> None:
    stream = joined(["Hello", " world"], sse=sse, done=sse)
    reader = AnswerReader(whole_json=True)
    assert list(reader.feed(stream)) == [["Hello", " world"]]
    assert reader.streamed


def test_a_whole_json_object_that_is_cut_is_an_error() -> None:
    body = json.dumps({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]}, indent=1).encode()
    for at in range(len(body)):
        with pytest.raises(ModelError):
            read([body[:at]], whole_json=True)


def test_a_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_answer, "MAX_LINE", 1000)
    with pytest.raises(ModelError, match="more than 1000 bytes"):
        read([b"data: " + b"x" * 600, b"x" * 600, b"x" * 600])


@pytest.mark.parametrize(
    ("error", "expected", "says"),
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
def test_an_error_in_the_stream_is_told_in_the_upstreams_words(
    error: Any, expected: type[Exception], says: str
) -> None:
    with pytest.raises(expected, match=says):
        read([joined(["Hi", {"error": error}])])


def test_an_error_at_the_top_level_is_one_too() -> None:
    with pytest.raises(InvalidRequest, match="too many tokens"):
        read([joined([{"object": "error", "message": "too many tokens", "type": "BadRequestError", "code": 400}])])


def test_an_error_whose_text_is_cut_inside_a_character_is_no_end_of_an_answer() -> None:
    line = b'data: {"object": "error", "message": "zu viel f\xc3", "code": 400}\n\ndata: [DONE]\n\n'
    with pytest.raises(ModelError):
        read([joined(["Hello"], finish=None, usage=None, done=False) + line])


def test_a_secret_that_the_upstream_repeats_is_struck_out() -> None:
    with pytest.raises(ModelError) as caught:
        read([joined([{"error": f"key s3cret is {'bad' * 1000}"}])], secret="s3cret")  # noqa: S106 - made up
    assert "s3cret" not in str(caught.value)
    assert len(str(caught.value)) < 600
