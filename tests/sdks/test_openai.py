"""OpenAI's Python client, unmodified, against a running server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.async_tests import async_test
from tests.pipeline.media.make_pictures import plain_picture
from tests.running_server import scripted_model, spin_until, upstream_model
from tests.sdks.openai_client import HI, WEATHER, data_uri, join_text, start_client
from tests.upstream import Upstream, hanging_response, stream_response


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
