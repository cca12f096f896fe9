"""The OpenAI-compatible provider against a real upstream: what goes out, and what comes back."""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress

import pytest

from pipeline.errors import InvalidRequest, ModelError, RateLimited
from pipeline.frames import Frame
from pipeline.messages import Message, Parameters, Stop
from tests.aio import asynchronous
from tests.pipeline.providers.asking import (
    ENDED,
    KEY,
    PLAIN,
    ask,
    failure,
    inference,
    read_all,
    talking,
)
from tests.upstream import CUT, stream_bytes, stream_of, whole

# --- what goes out -----------------------------------------------------------------------------------


@asynchronous
async def test_sends_turns_system_and_only_the_parameters_that_were_said() -> None:
    turns = (Message("user", ("a", "b")), Message("assistant", ("c",)), Message("user", ("d",)))
    said = Parameters(max_tokens=7, temperature=None, top_p=0.5, stop=("END",))
    async with talking() as (up, asking, to):
        await ask(asking, to, inference(*turns, system="Be kind.", parameters=said))
        assert up.requests[0].path == "/v1/chat/completions"
        assert up.requests[0].body == {
            "model": "m",
            "messages": [
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": "a\nb"},
                {"role": "assistant", "content": "c"},
                {"role": "user", "content": "d"},
            ],
            "max_tokens": 7,
            "top_p": 0.5,
            "stop": ["END"],
            "stream": True,
            "stream_options": {"include_usage": True},
        }


@asynchronous
async def test_frames_go_out_in_their_place_with_the_clients_own_base64() -> None:
    frame = Frame(b"picture", "png", 1, 1, base64="the client's own")
    coded = Frame(b"picture", "jpeg", 1, 1)
    async with talking() as (up, asking, to):
        await ask(asking, to, inference(Message("user", (frame, "What?", coded))))
        assert up.requests[0].body["messages"][0]["content"] == [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,the client's own"}},
            {"type": "text", "text": "What?"},
            {
                "type": "image_url",
                "image_url": {"url": "data:image/jpeg;base64," + base64.b64encode(b"picture").decode()},
            },
        ]


@asynchronous
async def test_a_body_of_many_megabytes_arrives_whole() -> None:
    frame = Frame(b"x", "png", 1, 1, base64="QUJD" * 1_500_000)
    async with talking() as (up, asking, to):
        assert await ask(asking, to, inference(Message("user", (frame,)))) == ["Hello", " world", *ENDED]
        assert up.requests[0].body["messages"][0]["content"][0]["image_url"]["url"].endswith("QUJD" * 1_500_000)
        assert "Content-Length" in up.requests[0].headers


@asynchronous
async def test_a_model_that_does_not_stream_is_asked_plainly() -> None:
    async with talking(whole("Hello"), capabilities=PLAIN) as (up, asking, to):
        reply = await asking.open(to, inference())
        assert await read_all(reply) == ["Hello", *ENDED]
        assert not reply.streamed
        assert up.requests[0].body["stream"] is False
        assert "stream_options" not in up.requests[0].body


@asynchronous
async def test_the_key_comes_from_the_variable_that_the_preset_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", KEY + "\n")
    async with talking(api_key_env="UPSTREAM_KEY") as (up, asking, to):
        await ask(asking, to)
        assert up.requests[0].headers["Authorization"] == f"Bearer {KEY}"


@asynchronous
async def test_without_a_key_no_authorization_is_sent() -> None:
    async with talking() as (up, asking, to):
        await ask(asking, to)
        assert "Authorization" not in up.requests[0].headers


@asynchronous
async def test_text_that_utf8_cannot_carry_is_refused() -> None:
    async with talking() as (_, asking, to):
        with pytest.raises(InvalidRequest, match="surrogate"):
            await asking.open(to, inference(text="\ud800"))


# --- what comes back -------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [None, 1, 7])
@pytest.mark.parametrize("sse", [True, False], ids=["sse", "bare lines"])
@asynchronous
async def test_a_stream_comes_out_whole_however_it_is_cut_into_packets(sse: bool, block: int | None) -> None:
    async with talking(stream_of(["Hello", " world"], sse=sse, done=sse, block=block)) as (_, asking, to):
        reply = await asking.open(to, inference())
        assert (reply.id, reply.model, reply.streamed) == ("chatcmpl-1", "upstream-model", True)
        assert await read_all(reply) == ["Hello", " world", *ENDED]


@asynchronous
async def test_open_returns_with_the_first_chunk_while_the_model_is_still_at_it() -> None:
    gate = asyncio.Event()
    async with talking(stream_of(["Hello", gate, " world"])) as (up, asking, to):
        reply = await asking.open(to, inference())
        assert up.answering == 1
        parts = aiter(reply)
        assert await anext(parts) == ["Hello"]
        gate.set()
        assert [part async for batch in parts for part in batch] == [" world", *ENDED]
        await reply.aclose()


@asynchronous
async def test_an_answer_without_text_is_an_empty_end() -> None:
    async with talking(stream_of([])) as (_, asking, to):
        assert await ask(asking, to) == ENDED


@pytest.mark.parametrize("indent", [None, 2])
@asynchronous
async def test_one_json_object_in_place_of_a_stream_is_taken_as_it_is(indent: int | None) -> None:
    async with talking(whole("Hello", indent=indent)) as (up, asking, to):
        reply = await asking.open(to, inference())
        assert up.requests[0].body["stream"] is True
        assert not reply.streamed
        assert await read_all(reply) == ["Hello", *ENDED]


@asynchronous
async def test_a_cut_at_any_byte_gives_the_whole_answer_or_a_model_error() -> None:
    size = len(b"".join(piece for piece in stream_bytes(["Hello", " world"]) if isinstance(piece, bytes)))
    async with talking() as (up, asking, to):
        for at in range(0, size, 5):
            up.answer = stream_of(["Hello", " world"], cut_at=at or 1)
            with suppress(ModelError):
                assert (await ask(asking, to))[:3] == ["Hello", " world", Stop("end_turn")]


@asynchronous
async def test_a_cut_in_mid_stream_comes_after_the_text_before_it() -> None:
    gate = asyncio.Event()
    async with talking(stream_of(["Hello", gate, CUT])) as (_, asking, to):
        reply = await asking.open(to, inference())
        parts = aiter(reply)
        assert await anext(parts) == ["Hello"]
        gate.set()
        with pytest.raises(ModelError, match="broke off"):
            await anext(parts)
        await reply.aclose()


@asynchronous
async def test_an_error_in_mid_stream_is_told_in_the_upstreams_words() -> None:
    async with talking(stream_of(["Hello", {"error": {"message": "CUDA out of memory", "code": 500}}])) as (
        _,
        asking,
        to,
    ):
        reply = await asking.open(to, inference())
        with pytest.raises(ModelError, match="CUDA out of memory"):
            await read_all(reply)


@asynchronous
async def test_an_error_as_the_first_chunk_comes_out_of_open() -> None:
    error = await failure(stream_of([{"error": {"message": "slow down", "type": "rate_limit_error"}}]))
    assert isinstance(error, RateLimited)
