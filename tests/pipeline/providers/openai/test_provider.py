"""The OpenAI-compatible provider against a real upstream: requests and responses."""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress

import pytest

from pipeline.errors import InvalidRequest, ModelError, RateLimited
from pipeline.media.frames import Frame
from pipeline.messages import Finish, Message, Parameters
from tests.async_tests import async_test
from tests.pipeline.providers.helpers import (
    API_KEY,
    FINAL_PARTS,
    WITHOUT_STREAM,
    catch_open_error,
    collect_parts,
    make_inference,
    read_parts,
    upstream_and_provider,
)
from tests.upstream import CUT, json_response, stream_bytes, stream_response

# --- requests ----------------------------------------------------------------------------------------


@async_test
async def test_request_has_turns_system_and_only_given_parameters() -> None:
    turns = (Message("user", ("a", "b")), Message("assistant", ("c",)), Message("user", ("d",)))
    parameters = Parameters(max_tokens=7, temperature=None, top_p=0.5, stop=("END",))
    async with upstream_and_provider() as (upstream, provider, target):
        await collect_parts(provider, target, make_inference(*turns, system="Be kind.", parameters=parameters))
        assert upstream.requests[0].path == "/v1/chat/completions"
        assert upstream.requests[0].body == {
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


@async_test
async def test_request_has_frames_in_order_with_original_base64() -> None:
    frame = Frame(b"picture", "png", 1, 1, base64="the client's own")
    encoded = Frame(b"picture", "jpeg", 1, 1)
    async with upstream_and_provider() as (upstream, provider, target):
        await collect_parts(provider, target, make_inference(Message("user", (frame, "What?", encoded))))
        assert upstream.requests[0].body["messages"][0]["content"] == [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,the client's own"}},
            {"type": "text", "text": "What?"},
            {
                "type": "image_url",
                "image_url": {"url": "data:image/jpeg;base64," + base64.b64encode(b"picture").decode()},
            },
        ]


@async_test
async def test_large_request_body_is_sent_whole() -> None:
    frame = Frame(b"x", "png", 1, 1, base64="QUJD" * 1_500_000)
    async with upstream_and_provider() as (upstream, provider, target):
        assert await collect_parts(provider, target, make_inference(Message("user", (frame,)))) == [
            "Hello",
            " world",
            *FINAL_PARTS,
        ]
        assert upstream.requests[0].body["messages"][0]["content"][0]["image_url"]["url"].endswith("QUJD" * 1_500_000)
        assert "Content-Length" in upstream.requests[0].headers


@async_test
async def test_model_without_stream_capability_is_called_without_stream() -> None:
    async with upstream_and_provider(json_response("Hello"), capabilities=WITHOUT_STREAM) as (
        upstream,
        provider,
        target,
    ):
        response = await provider.open(target, make_inference())
        assert await read_parts(response) == ["Hello", *FINAL_PARTS]
        assert not response.streamed
        assert upstream.requests[0].body["stream"] is False
        assert "stream_options" not in upstream.requests[0].body


@async_test
async def test_api_key_is_read_from_preset_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", API_KEY + "\n")
    async with upstream_and_provider(api_key_env="UPSTREAM_KEY") as (upstream, provider, target):
        await collect_parts(provider, target)
        assert upstream.requests[0].headers["Authorization"] == f"Bearer {API_KEY}"


@async_test
async def test_request_without_api_key_has_no_authorization() -> None:
    async with upstream_and_provider() as (upstream, provider, target):
        await collect_parts(provider, target)
        assert "Authorization" not in upstream.requests[0].headers


@async_test
async def test_text_with_lone_surrogate_is_invalid_request() -> None:
    async with upstream_and_provider() as (_, provider, target):
        with pytest.raises(InvalidRequest, match="surrogate"):
            await provider.open(target, make_inference(text="\ud800"))


# --- responses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [None, 1, 7])
@pytest.mark.parametrize("sse", [True, False], ids=["sse", "bare lines"])
@async_test
async def test_stream_is_whole_for_every_packet_size(sse: bool, block: int | None) -> None:
    async with upstream_and_provider(stream_response(["Hello", " world"], sse=sse, done=sse, block_size=block)) as (
        _,
        provider,
        target,
    ):
        response = await provider.open(target, make_inference())
        assert (response.id, response.model, response.streamed) == ("chatcmpl-1", "upstream-model", True)
        assert await read_parts(response) == ["Hello", " world", *FINAL_PARTS]


@async_test
async def test_open_returns_at_first_chunk_before_end_of_stream() -> None:
    gate = asyncio.Event()
    async with upstream_and_provider(stream_response(["Hello", gate, " world"])) as (upstream, provider, target):
        response = await provider.open(target, make_inference())
        assert upstream.in_flight == 1
        parts = aiter(response)
        assert await anext(parts) == ["Hello"]
        gate.set()
        assert [part async for batch in parts for part in batch] == [" world", *FINAL_PARTS]
        await response.aclose()


@async_test
async def test_stream_without_text_yields_only_final_parts() -> None:
    async with upstream_and_provider(stream_response([])) as (_, provider, target):
        assert await collect_parts(provider, target) == FINAL_PARTS


@pytest.mark.parametrize("indent", [None, 2])
@async_test
async def test_json_object_instead_of_stream_is_accepted(indent: int | None) -> None:
    async with upstream_and_provider(json_response("Hello", indent=indent)) as (upstream, provider, target):
        response = await provider.open(target, make_inference())
        assert upstream.requests[0].body["stream"] is True
        assert not response.streamed
        assert await read_parts(response) == ["Hello", *FINAL_PARTS]


@async_test
async def test_connection_cut_at_any_byte_gives_whole_response_or_model_error() -> None:
    size = len(b"".join(piece for piece in stream_bytes(["Hello", " world"]) if isinstance(piece, bytes)))
    async with upstream_and_provider() as (upstream, provider, target):
        for cut_at in range(0, size, 5):
            upstream.response = stream_response(["Hello", " world"], cut_at=cut_at or 1)
            with suppress(ModelError):
                assert (await collect_parts(provider, target))[:3] == ["Hello", " world", Finish("end_turn")]


@async_test
async def test_connection_cut_in_mid_stream_raises_after_text() -> None:
    gate = asyncio.Event()
    async with upstream_and_provider(stream_response(["Hello", gate, CUT])) as (_, provider, target):
        response = await provider.open(target, make_inference())
        parts = aiter(response)
        assert await anext(parts) == ["Hello"]
        gate.set()
        with pytest.raises(ModelError, match="broke off"):
            await anext(parts)
        await response.aclose()


@async_test
async def test_error_in_mid_stream_has_upstream_message() -> None:
    async with upstream_and_provider(
        stream_response(["Hello", {"error": {"message": "CUDA out of memory", "code": 500}}])
    ) as (
        _,
        provider,
        target,
    ):
        response = await provider.open(target, make_inference())
        with pytest.raises(ModelError, match="CUDA out of memory"):
            await read_parts(response)


@async_test
async def test_error_as_first_chunk_is_raised_by_open() -> None:
    error = await catch_open_error(stream_response([{"error": {"message": "slow down", "type": "rate_limit_error"}}]))
    assert isinstance(error, RateLimited)
