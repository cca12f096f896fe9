"""OpenAI's Python client, unmodified, against a running server."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam, ChatCompletionToolParam

from tests.async_tests import async_test
from tests.pipeline.media.make_pictures import plain_picture
from tests.running_server import RunningServer, running_server, scripted_model, spin_until, upstream_model
from tests.upstream import Upstream, error_response, hanging_response, stream_response

HI: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hi there"}]
WEATHER: list[ChatCompletionToolParam] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "How it is outside",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


@asynccontextmanager
async def start_client(
    folder: Path, *flags: str, retries: int = 0, key: str = "none", **models: Mapping[str, Any]
) -> AsyncIterator[tuple[RunningServer, AsyncOpenAI]]:
    async with (
        running_server(folder, *flags, models=models) as server,
        AsyncOpenAI(base_url=server.url + "/v1", api_key=key, max_retries=retries) as client,
    ):
        yield server, client


async def join_text(chunks: AsyncIterator[ChatCompletionChunk]) -> str:
    return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])


@async_test
async def test_response_has_text_stop_reason_and_usage(tmp_path: Path) -> None:
    async with start_client(tmp_path, m=scripted_model("echo; usage:3,4")) as (_, client):
        response = await client.chat.completions.create(model="m", messages=HI)
    assert (response.object, response.model, response.id[:9]) == ("chat.completion", "m", "chatcmpl-")
    (choice,) = response.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Hi there", "stop")
    assert response.usage is not None
    assert (response.usage.prompt_tokens, response.usage.completion_tokens, response.usage.total_tokens) == (3, 4, 7)


@async_test
async def test_usage_is_absent_without_token_counts(tmp_path: Path) -> None:
    async with start_client(tmp_path, m=scripted_model("echo; stop:max_tokens")) as (_, client):
        response = await client.chat.completions.create(model="m", messages=HI)
    assert (response.usage, response.choices[0].finish_reason) == (None, "length")


@async_test
async def test_stream_yields_tokens_and_requested_usage(tmp_path: Path) -> None:
    async with start_client(tmp_path, m=scripted_model("chunks:3; usage:3,4")) as (_, client):
        stream = await client.chat.completions.create(
            model="m", messages=HI, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        plain = [chunk async for chunk in await client.chat.completions.create(model="m", messages=HI, stream=True)]
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert (deltas[0].role, [delta.content for delta in deltas]) == ("assistant", ["", "tok0 ", "tok1 ", "tok2 ", None])
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices] == [None] * 4 + ["stop"]
    assert {(chunk.id, chunk.created, chunk.model) for chunk in chunks} == {(chunks[0].id, chunks[0].created, "m")}
    assert chunks[-1].usage is not None
    assert (chunks[-1].choices, chunks[-1].usage.total_tokens) == ([], 7)
    assert all(chunk.choices and chunk.usage is None for chunk in plain)


@async_test
async def test_stream_delivers_first_token_before_last_exists(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        release = asyncio.Event()
        upstream.response = stream_response(["one ", release, "two"])
        async with start_client(tmp_path, m=upstream_model(upstream.base_url)) as (_, client):
            stream = await client.chat.completions.create(model="m", messages=HI, stream=True)
            chunks = aiter(stream)
            first = [await anext(chunks), await anext(chunks)][1].choices[0].delta.content
            release.set()
            assert (first, await join_text(chunks)) == ("one ", "two")


@async_test
async def test_turns_and_system_text_reach_upstream(tmp_path: Path) -> None:
    async with Upstream() as upstream, start_client(tmp_path, m=upstream_model(upstream.base_url)) as (_, client):
        await client.chat.completions.create(
            model="m",
            messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
                {"role": "user", "content": "One?"},
                {"role": "assistant", "content": "Two."},
                {"role": "user", "content": [{"type": "text", "text": "Three?"}, {"type": "text", "text": "Four?"}]},
            ],
            max_completion_tokens=9,
            temperature=0.5,
            top_p=0.25,
            stop=["END"],
            seed=7,
            user="me",
            metadata={"a": "b"},
            store=False,
        )
        body = upstream.requests[0].body
    assert body["messages"] == [
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "Three?\nFour?"},
    ]
    parameters = {key: body[key] for key in ("max_tokens", "temperature", "top_p", "stop", "seed")}
    assert parameters == {"max_tokens": 9, "temperature": 0.5, "top_p": 0.25, "stop": ["END"], "seed": 7}
    assert not {"user", "metadata", "store"} & body.keys()


@async_test
async def test_omitted_parameters_use_model_defaults(tmp_path: Path) -> None:
    async with (
        Upstream() as upstream,
        start_client(tmp_path, m=upstream_model(upstream.base_url, limits={"max_tokens": 77})) as (_, client),
    ):
        await client.chat.completions.create(model="m", messages=HI)
        body = upstream.requests[0].body
    assert (body["max_tokens"], "temperature" in body, "top_p" in body) == (77, False, False)


@async_test
async def test_pictures_of_every_turn_are_downscaled_and_sent(tmp_path: Path) -> None:
    large, small = plain_picture(64, 64).data, plain_picture(4, 4).data
    async with (
        Upstream() as upstream,
        start_client(tmp_path, m=upstream_model(upstream.base_url, limits={"frame_pixels": 100})) as (_, client),
    ):
        await client.chat.completions.create(
            model="m",
            messages=[
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_uri(large)}}]},
                {"role": "assistant", "content": "A square."},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "And this?"},
                        {"type": "image_url", "image_url": {"url": data_uri(small), "detail": "low"}},
                    ],
                },
            ],
        )
        first, _, last = upstream.requests[0].body["messages"]
    assert last["content"][1]["image_url"]["url"] == data_uri(small)
    assert first["content"][0]["image_url"]["url"] not in {data_uri(large), data_uri(small)}


@async_test
async def test_tool_conversation_completes(tmp_path: Path) -> None:
    async with start_client(
        tmp_path, m=scripted_model('call:weather,{"city": "Ulm"}; call:weather,{"city": "Bonn"}; echo')
    ) as (
        _,
        client,
    ):
        messages = list(HI)
        first = await client.chat.completions.create(model="m", messages=messages, tools=WEATHER)
        (choice,) = first.choices
        calls = choice.message.tool_calls or []
        assert choice.finish_reason == "tool_calls"
        parsed_calls = [(call.id, json.loads(call.function.arguments)) for call in calls if call.type == "function"]
        assert parsed_calls == [("call_0", {"city": "Ulm"}), ("call_1", {"city": "Bonn"})]
        messages.append(choice.message.model_dump())  # type: ignore[arg-type]  # as people do, with all its nulls
        messages += [{"role": "tool", "tool_call_id": call.id, "content": f"{call.id}: rain"} for call in calls]
        second = await client.chat.completions.create(model="m", messages=messages, tools=WEATHER)
    assert (second.choices[0].message.content, second.choices[0].finish_reason) == ("call_1: rain", "stop")


@async_test
async def test_tool_calls_stream_as_deltas(tmp_path: Path) -> None:
    script = 'say:Let me look.; call:weather,{"city": "Ulm"}'
    async with (
        start_client(tmp_path, m=scripted_model(script)) as (_, client),
        client.chat.completions.stream(model="m", messages=HI, tools=WEATHER) as stream,
    ):
        kinds = [event.type async for event in stream]
        final = await stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or []
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Ulm"})
    assert (final.choices[0].message.content, final.choices[0].finish_reason) == ("Let me look.", "tool_calls")
    assert kinds.count("tool_calls.function.arguments.delta") == 3


@async_test
async def test_tools_pass_through_openai_upstream(tmp_path: Path) -> None:
    first_delta = {"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"ci'}}
    second_delta = {"index": 0, "function": {"arguments": 'ty":"Ulm"}'}}
    async with Upstream() as upstream, start_client(tmp_path, m=upstream_model(upstream.base_url)) as (_, client):
        upstream.response = stream_response(
            [{"choices": [{"index": 0, "delta": {"tool_calls": [delta]}}]} for delta in (first_delta, second_delta)],
            finish_reason="tool_calls",
        )
        response = await client.chat.completions.create(
            model="m",
            messages=[
                *HI,
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"id": "c0", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
                    ],
                },
                {"role": "tool", "tool_call_id": "c0", "content": "Which city?"},
            ],
            tools=WEATHER,
            tool_choice={"type": "function", "function": {"name": "weather"}},
            parallel_tool_calls=False,
        )
        body = upstream.requests[0].body
    (call,) = response.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.id, call.function.name, call.function.arguments) == ("c1", "weather", '{"city":"Ulm"}')
    assert body["tools"] == WEATHER
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert body["parallel_tool_calls"] is False
    assert body["messages"][1]["tool_calls"][0]["id"] == "c0"
    assert body["messages"][2] == {"role": "tool", "tool_call_id": "c0", "content": "Which city?"}


@async_test
async def test_response_format_is_passed_on_or_rejected_by_provider(tmp_path: Path) -> None:
    schema: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    async with (
        Upstream() as upstream,
        start_client(tmp_path, m=upstream_model(upstream.base_url), s=scripted_model("echo")) as (_, client),
    ):
        await client.chat.completions.create(model="m", messages=HI, response_format=schema)
        assert upstream.requests[0].body["response_format"] == schema
        await client.chat.completions.create(model="s", messages=HI, response_format={"type": "text"})
        with pytest.raises(openai.BadRequestError, match="response_format: s does not take this") as error:
            await client.chat.completions.create(model="s", messages=HI, response_format=schema)
    assert error.value.param == "response_format"


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


@pytest.mark.parametrize("stream", [False, True])
@async_test
async def test_cancelled_request_cancels_upstream_call(tmp_path: Path, stream: bool) -> None:
    async with Upstream() as upstream, start_client(tmp_path, m=upstream_model(upstream.base_url)) as (server, client):
        upstream.response = hanging_response()
        task = asyncio.create_task(client.chat.completions.create(model="m", messages=HI, stream=stream))
        await upstream.wait_for_requests(1)
        task.cancel()
        await upstream.wait_until_idle()
        assert upstream.cancelled == 1
        await server.wait_until_idle()


@async_test
async def test_closed_stream_cancels_upstream_call(tmp_path: Path) -> None:
    async with start_client(tmp_path, m=scripted_model("say:one; hang")) as (server, client):
        stream = await client.chat.completions.create(model="m", messages=HI, stream=True)
        await anext(aiter(stream))
        await stream.close()
        await spin_until(lambda: server.scripted.cancelled == 1)
        await server.wait_until_idle()


@async_test
async def test_idle_stream_heartbeats_are_invisible_to_client(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        release = asyncio.Event()
        upstream.response = stream_response([release, "late"])
        async with start_client(tmp_path, "--heartbeat", "0.01", m=upstream_model(upstream.base_url)) as (_, client):
            stream = await client.chat.completions.create(model="m", messages=HI, stream=True)
            chunks = aiter(stream)
            await anext(chunks)
            release.set()
            assert await join_text(chunks) == "late"


@async_test
async def test_models_list_presets(tmp_path: Path) -> None:
    async with start_client(tmp_path, m=scripted_model("echo"), other=scripted_model("echo")) as (_, client):
        assert [model.id async for model in client.models.list()] == ["m", "other"]
        assert (await client.models.retrieve("other")).owned_by == "scripted"
        with pytest.raises(openai.NotFoundError, match="No preset defines a model 'gone'") as error:
            await client.models.retrieve("gone")
        assert error.value.code == "model_not_found"
        with pytest.raises(openai.NotFoundError, match="No preset defines a model 'gone'"):
            await client.chat.completions.create(model="gone", messages=HI)


@async_test
async def test_client_api_key_is_checked(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("right\n")
    async with start_client(tmp_path, "--api-keys-file", str(keys), key="right", m=scripted_model("echo")) as (
        _,
        client,
    ):
        assert (await client.chat.completions.create(model="m", messages=HI)).choices
        with pytest.raises(openai.AuthenticationError, match="An API key is needed") as error:
            await client.with_options(api_key="wrong").chat.completions.create(model="m", messages=HI)
        assert error.value.code == "invalid_api_key"


def data_uri(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"
