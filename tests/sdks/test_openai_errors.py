"""OpenAI's Python client, unmodified: what it raises, and what it retries."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.async_tests import async_test
from tests.running_server import scripted_model, upstream_model
from tests.sdks.openai_client import HI, start_client
from tests.upstream import Upstream, error_response, stream_response


@pytest.mark.parametrize(
    ("fields", "message", "param"),
    [
        ({"n": 2}, "n: expected an integer <= 1", "n"),
        ({"logprobs": True}, "logprobs: this server passes no log probabilities on", "logprobs"),
        ({"stop": ["a"] * 5}, "stop: expected", "stop"),
        ({"temperature": 3}, "temperature: expected", "temperature"),
        ({"audio": {"voice": "x", "format": "mp3"}}, "audio: unknown field", "audio"),
        ({"tool_choice": "required"}, "tool_choice: a call is required, but there are no tools", "tool_choice"),
        ({"messages": []}, "messages: expected", "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages: expected at least one", "messages"),
        (
            {"messages": [{"role": "wizard", "content": "x"}]},
            "expected one of 'system', 'developer'",
            "messages[0].role",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "expected one of 'text', 'image_url', not 'input_audio'",
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.b/c"}}]}]},
            "fetches no pictures from elsewhere",
            "messages[0].content[0].image_url",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,x"}}]}]},
            "a data: URI has to hold base64",
            "messages[0].content[0].image_url",
        ),
    ],
)
@async_test
async def test_unsupported_field_is_rejected_with_reason(
    tmp_path: Path, fields: dict[str, Any], message: str, param: str
) -> None:
    async with start_client(tmp_path, m=scripted_model("echo")) as (server, client):
        with pytest.raises(openai.BadRequestError, match="400") as error:
            await client.chat.completions.create(**{"model": "m", "messages": HI, **fields})
        assert not server.scripted.calls
    assert message in error.value.message
    assert (error.value.type, error.value.param, error.value.code) == (
        "invalid_request_error",
        param,
        "invalid_request",
    )


@pytest.mark.parametrize(
    ("code", "exception", "expected"),
    [
        ("rate_limited", openai.RateLimitError, ("rate_limit_error", "rate_limit_exceeded")),
        ("model_error", openai.InternalServerError, ("server_error", "model_error")),
        ("model_not_deployed", openai.InternalServerError, ("server_error", "model_not_deployed")),
        ("invalid_request", openai.BadRequestError, ("invalid_request_error", "invalid_request")),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
@async_test
async def test_error_raises_client_exception_of_its_status(
    tmp_path: Path, code: str, exception: type[openai.APIStatusError], expected: tuple[str, str], stream: bool
) -> None:
    async with start_client(tmp_path, m=scripted_model(f"fail:{code}")) as (_, client):
        with pytest.raises(exception, match="The script says so") as error:
            await client.chat.completions.create(model="m", messages=HI, stream=stream)
    assert (error.value.type, error.value.code) == expected
    assert error.value.request_id
    assert ("retry-after" in error.value.response.headers) == (code == "rate_limited")


@async_test
async def test_error_in_mid_stream_is_raised_after_received_chunks(tmp_path: Path) -> None:
    async with start_client(tmp_path, m=scripted_model("say:one two; fail:model_error")) as (_, client):
        chunks = aiter(await client.chat.completions.create(model="m", messages=HI, stream=True))
        received = [(await anext(chunks)).choices[0].delta.content for _ in range(3)]
        with pytest.raises(openai.APIError, match="The script says so"):
            await anext(chunks)
    assert received == ["", "one ", "two"]


@async_test
async def test_client_retries_after_retry_after(tmp_path: Path) -> None:
    async with (
        Upstream() as upstream,
        start_client(tmp_path, retries=2, m=upstream_model(upstream.base_url)) as (server, client),
    ):
        upstream.response = error_response(429, headers={"Retry-After": "0.01"})
        task = asyncio.create_task(client.chat.completions.create(model="m", messages=HI))
        await upstream.wait_for_requests(1)
        upstream.response = stream_response(["at last"])
        assert (await task).choices[0].message.content == "at last"
        assert len(upstream.requests) == 2
        await server.wait_until_idle()
