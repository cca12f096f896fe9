"""OpenAI's own Python client, unmodified, against a running server."""

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

from tests.aio import asynchronous
from tests.pipeline.drawn import plain
from tests.serving import Server, asks, says, serving, until
from tests.upstream import Upstream, hang, refusal, stream_of

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
async def talking(
    folder: Path, *flags: str, retries: int = 0, key: str = "none", **models: Mapping[str, Any]
) -> AsyncIterator[tuple[Server, AsyncOpenAI]]:
    async with (
        serving(folder, *flags, models=models) as server,
        AsyncOpenAI(base_url=server.url + "/v1", api_key=key, max_retries=retries) as client,
    ):
        yield server, client


async def text_of(chunks: AsyncIterator[ChatCompletionChunk]) -> str:
    return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])


@asynchronous
async def test_a_whole_answer_has_its_text_its_end_and_its_tokens(tmp_path: Path) -> None:
    async with talking(tmp_path, m=says("echo; usage:3,4")) as (_, client):
        answer = await client.chat.completions.create(model="m", messages=HI)
    assert (answer.object, answer.model, answer.id[:9]) == ("chat.completion", "m", "chatcmpl-")
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Hi there", "stop")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 4, 7)


@asynchronous
async def test_usage_is_left_out_where_the_provider_counts_none(tmp_path: Path) -> None:
    async with talking(tmp_path, m=says("echo; stop:max_tokens")) as (_, client):
        answer = await client.chat.completions.create(model="m", messages=HI)
    assert (answer.usage, answer.choices[0].finish_reason) == (None, "length")


@asynchronous
async def test_a_stream_brings_the_tokens_as_they_come_and_usage_if_it_is_asked_for(tmp_path: Path) -> None:
    async with talking(tmp_path, m=says("chunks:3; usage:3,4")) as (_, client):
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


@asynchronous
async def test_the_first_token_is_read_before_the_last_is_made(tmp_path: Path) -> None:
    async with Upstream() as up:
        more = asyncio.Event()
        up.answer = stream_of(["one ", more, "two"])
        async with talking(tmp_path, m=asks(up.base_url)) as (_, client):
            stream = await client.chat.completions.create(model="m", messages=HI, stream=True)
            chunks = aiter(stream)
            first = [await anext(chunks), await anext(chunks)][1].choices[0].delta.content
            more.set()
            assert (first, await text_of(chunks)) == ("one ", "two")


@asynchronous
async def test_several_turns_and_what_the_system_says_reach_the_model(tmp_path: Path) -> None:
    async with Upstream() as up, talking(tmp_path, m=asks(up.base_url)) as (_, client):
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
        body = up.requests[0].body
    assert body["messages"] == [
        {"role": "system", "content": "Be brief.\n\nBe kind."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "Three?\nFour?"},
    ]
    said = {key: body[key] for key in ("max_tokens", "temperature", "top_p", "stop", "seed")}
    assert said == {"max_tokens": 9, "temperature": 0.5, "top_p": 0.25, "stop": ["END"], "seed": 7}
    assert not {"user", "metadata", "store"} & body.keys()


@asynchronous
async def test_what_is_not_said_is_the_models_own(tmp_path: Path) -> None:
    async with Upstream() as up, talking(tmp_path, m=asks(up.base_url, limits={"max_tokens": 77})) as (_, client):
        await client.chat.completions.create(model="m", messages=HI)
        body = up.requests[0].body
    assert (body["max_tokens"], "temperature" in body, "top_p" in body) == (77, False, False)


@asynchronous
async def test_pictures_of_every_turn_reach_the_model_and_are_made_to_fit(tmp_path: Path) -> None:
    large, small = plain(64, 64).data, plain(4, 4).data
    async with Upstream() as up, talking(tmp_path, m=asks(up.base_url, limits={"frame_pixels": 100})) as (_, client):
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
        first, _, last = up.requests[0].body["messages"]
    assert last["content"][1]["image_url"]["url"] == data_uri(small)
    assert first["content"][0]["image_url"]["url"] not in {data_uri(large), data_uri(small)}


@asynchronous
async def test_a_conversation_with_tools_runs_to_its_end(tmp_path: Path) -> None:
    async with talking(tmp_path, m=says('call:weather,{"city": "Ulm"}; call:weather,{"city": "Bonn"}; echo')) as (
        _,
        client,
    ):
        messages = list(HI)
        asked = await client.chat.completions.create(model="m", messages=messages, tools=WEATHER)
        (choice,) = asked.choices
        calls = choice.message.tool_calls or []
        assert choice.finish_reason == "tool_calls"
        told = [(call.id, json.loads(call.function.arguments)) for call in calls if call.type == "function"]
        assert told == [("call_0", {"city": "Ulm"}), ("call_1", {"city": "Bonn"})]
        messages.append(choice.message.model_dump())  # type: ignore[arg-type]  # as people do, with all its nulls
        messages += [{"role": "tool", "tool_call_id": call.id, "content": f"{call.id}: rain"} for call in calls]
        answer = await client.chat.completions.create(model="m", messages=messages, tools=WEATHER)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("call_1: rain", "stop")


@asynchronous
async def test_tool_calls_stream_in_pieces_that_the_client_joins(tmp_path: Path) -> None:
    script = 'say:Let me look.; call:weather,{"city": "Ulm"}'
    async with (
        talking(tmp_path, m=says(script)) as (_, client),
        client.chat.completions.stream(model="m", messages=HI, tools=WEATHER) as stream,
    ):
        kinds = [event.type async for event in stream]
        final = await stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or []
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Ulm"})
    assert (final.choices[0].message.content, final.choices[0].finish_reason) == ("Let me look.", "tool_calls")
    assert kinds.count("tool_calls.function.arguments.delta") == 3


@asynchronous
async def test_tools_pass_through_to_an_upstream_of_this_shape_and_back(tmp_path: Path) -> None:
    piece = {"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"ci'}}
    rest = {"index": 0, "function": {"arguments": 'ty":"Ulm"}'}}
    async with Upstream() as up, talking(tmp_path, m=asks(up.base_url)) as (_, client):
        up.answer = stream_of(
            [{"choices": [{"index": 0, "delta": {"tool_calls": [one]}}]} for one in (piece, rest)], finish="tool_calls"
        )
        answer = await client.chat.completions.create(
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
        body = up.requests[0].body
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.id, call.function.name, call.function.arguments) == ("c1", "weather", '{"city":"Ulm"}')
    assert body["tools"] == WEATHER
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert body["parallel_tool_calls"] is False
    assert body["messages"][1]["tool_calls"][0]["id"] == "c0"
    assert body["messages"][2] == {"role": "tool", "tool_call_id": "c0", "content": "Which city?"}


@asynchronous
async def test_a_json_schema_is_passed_on_where_the_upstream_takes_it_and_refused_elsewhere(tmp_path: Path) -> None:
    schema: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    async with Upstream() as up, talking(tmp_path, m=asks(up.base_url), s=says("echo")) as (_, client):
        await client.chat.completions.create(model="m", messages=HI, response_format=schema)
        assert up.requests[0].body["response_format"] == schema
        await client.chat.completions.create(model="s", messages=HI, response_format={"type": "text"})
        with pytest.raises(openai.BadRequestError, match="response_format: s does not take this") as refused:
            await client.chat.completions.create(model="s", messages=HI, response_format=schema)
    assert refused.value.param == "response_format"


@pytest.mark.parametrize(
    ("fields", "said", "param"),
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
@asynchronous
async def test_what_cannot_be_honoured_is_refused_with_a_sentence(
    tmp_path: Path, fields: dict[str, Any], said: str, param: str
) -> None:
    async with talking(tmp_path, m=says("echo")) as (server, client):
        with pytest.raises(openai.BadRequestError, match="400") as refused:
            await client.chat.completions.create(**{"model": "m", "messages": HI, **fields})
        assert not server.scripted.calls
    assert said in refused.value.message
    assert (refused.value.type, refused.value.param, refused.value.code) == (
        "invalid_request_error",
        param,
        "invalid_request",
    )


@pytest.mark.parametrize(
    ("code", "kind", "told"),
    [
        ("rate_limited", openai.RateLimitError, ("rate_limit_error", "rate_limit_exceeded")),
        ("model_error", openai.InternalServerError, ("server_error", "model_error")),
        ("model_not_deployed", openai.InternalServerError, ("server_error", "model_not_deployed")),
        ("invalid_request", openai.BadRequestError, ("invalid_request_error", "invalid_request")),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
@asynchronous
async def test_an_error_is_the_clients_own_of_its_status(
    tmp_path: Path, code: str, kind: type[openai.APIStatusError], told: tuple[str, str], stream: bool
) -> None:
    async with talking(tmp_path, m=says(f"fail:{code}")) as (_, client):
        with pytest.raises(kind, match="The script says so") as failed:
            await client.chat.completions.create(model="m", messages=HI, stream=stream)
    assert (failed.value.type, failed.value.code) == told
    assert failed.value.request_id
    assert ("retry-after" in failed.value.response.headers) == (code == "rate_limited")


@asynchronous
async def test_an_error_in_mid_stream_is_raised_after_what_came(tmp_path: Path) -> None:
    async with talking(tmp_path, m=says("say:one two; fail:model_error")) as (_, client):
        chunks = aiter(await client.chat.completions.create(model="m", messages=HI, stream=True))
        came = [(await anext(chunks)).choices[0].delta.content for _ in range(3)]
        with pytest.raises(openai.APIError, match="The script says so"):
            await anext(chunks)
    assert came == ["", "one ", "two"]


@asynchronous
async def test_who_is_throttled_comes_back_when_it_was_told_to(tmp_path: Path) -> None:
    async with Upstream() as up, talking(tmp_path, retries=2, m=asks(up.base_url)) as (server, client):
        up.answer = refusal(429, headers={"Retry-After": "0.01"})
        asking = asyncio.create_task(client.chat.completions.create(model="m", messages=HI))
        await up.asked(1)
        up.answer = stream_of(["at last"])
        assert (await asking).choices[0].message.content == "at last"
        assert len(up.requests) == 2
        await server.ended()


@pytest.mark.parametrize("stream", [False, True])
@asynchronous
async def test_a_client_that_gives_up_ends_the_models_call(tmp_path: Path, stream: bool) -> None:
    async with Upstream() as up, talking(tmp_path, m=asks(up.base_url)) as (server, client):
        up.answer = hang()
        asking = asyncio.create_task(client.chat.completions.create(model="m", messages=HI, stream=stream))
        await up.asked(1)
        asking.cancel()
        await up.idle()
        assert up.cancelled == 1
        await server.ended()


@asynchronous
async def test_a_stream_that_is_closed_half_way_ends_the_models_call(tmp_path: Path) -> None:
    async with talking(tmp_path, m=says("say:one; hang")) as (server, client):
        stream = await client.chat.completions.create(model="m", messages=HI, stream=True)
        await anext(aiter(stream))
        await stream.close()
        await until(lambda: server.scripted.cancelled == 1)
        await server.ended()


@asynchronous
async def test_silence_is_kept_alive_without_a_word_to_the_client(tmp_path: Path) -> None:
    async with Upstream() as up:
        more = asyncio.Event()
        up.answer = stream_of([more, "late"])
        async with talking(tmp_path, "--heartbeat", "0.01", m=asks(up.base_url)) as (_, client):
            stream = await client.chat.completions.create(model="m", messages=HI, stream=True)
            chunks = aiter(stream)
            await anext(chunks)
            more.set()
            assert await text_of(chunks) == "late"


@asynchronous
async def test_models_are_the_presets(tmp_path: Path) -> None:
    async with talking(tmp_path, m=says("echo"), other=says("echo")) as (_, client):
        assert [model.id async for model in client.models.list()] == ["m", "other"]
        assert (await client.models.retrieve("other")).owned_by == "scripted"
        with pytest.raises(openai.NotFoundError, match="No preset defines a model 'gone'") as missing:
            await client.models.retrieve("gone")
        assert missing.value.code == "model_not_found"
        with pytest.raises(openai.NotFoundError, match="No preset defines a model 'gone'"):
            await client.chat.completions.create(model="gone", messages=HI)


@asynchronous
async def test_the_clients_key_is_the_servers(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("right\n")
    async with talking(tmp_path, "--api-keys-file", str(keys), key="right", m=says("echo")) as (_, client):
        assert (await client.chat.completions.create(model="m", messages=HI)).choices
        with pytest.raises(openai.AuthenticationError, match="An API key is needed") as refused:
            await client.with_options(api_key="wrong").chat.completions.create(model="m", messages=HI)
        assert refused.value.code == "invalid_api_key"


def data_uri(picture: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"
