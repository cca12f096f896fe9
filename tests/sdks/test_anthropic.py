"""Anthropic's own Python client, unmodified, against a running server."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import MessageParam, ToolParam

from tests.aio import asynchronous
from tests.pipeline.drawn import plain
from tests.serving import Server, asks, says, serving, until
from tests.upstream import Upstream, hang, refusal, stream_of

HI: list[MessageParam] = [{"role": "user", "content": "Hi there"}]
ASKED: dict[str, Any] = {"model": "m", "max_tokens": 99, "messages": HI}
WEATHER: ToolParam = {
    "name": "weather",
    "description": "How it is outside",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@asynccontextmanager
async def talking(
    folder: Path, *flags: str, retries: int = 0, key: str = "none", **models: Mapping[str, Any]
) -> AsyncIterator[tuple[Server, AsyncAnthropic]]:
    async with (
        serving(folder, *flags, models=models) as server,
        AsyncAnthropic(base_url=server.url, api_key=key, max_retries=retries) as client,
    ):
        yield server, client


@asynchronous
async def test_a_whole_answer_has_its_text_its_end_and_its_tokens(tmp_path: Path) -> None:
    async with talking(tmp_path, m=says("echo; usage:3,4")) as (_, client):
        answer = await client.messages.create(**ASKED)
    assert (answer.type, answer.role, answer.model, answer.id[:4]) == ("message", "assistant", "m", "msg_")
    (block,) = answer.content
    assert block.type == "text"
    assert (block.text, answer.stop_reason, answer.stop_sequence) == ("Hi there", "end_turn", None)
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 4)


@asynchronous
async def test_a_stream_is_the_same_answer_as_it_comes(tmp_path: Path) -> None:
    async with (
        talking(tmp_path, m=says("chunks:3; usage:3,4; stop:max_tokens")) as (_, client),
        client.messages.stream(**ASKED) as stream,
    ):
        texts = [text async for text in stream.text_stream]
        final = await stream.get_final_message()
    assert texts == ["tok0 ", "tok1 ", "tok2 "]
    assert final.content[0].type == "text"
    assert (final.content[0].text, final.stop_reason) == ("tok0 tok1 tok2 ", "max_tokens")
    assert (final.usage.input_tokens, final.usage.output_tokens) == (3, 4)


@asynchronous
async def test_its_events_come_in_anthropics_order(tmp_path: Path) -> None:
    async with talking(tmp_path, m=says("say:one; call:weather,{}; say:two")) as (_, client):
        stream = await client.messages.create(**ASKED, tools=[WEATHER], stream=True)
        events = [(event.type, getattr(event, "index", None)) async for event in stream]
    told: list[tuple[str, int | None]] = [("message_start", None)]
    for index, deltas in enumerate((1, 2, 1)):  # the tool's arguments come in two pieces
        told += [(kind, index) for kind in ["content_block_start", *["content_block_delta"] * deltas]]
        told.append(("content_block_stop", index))
    assert events == [*told, ("message_delta", None), ("message_stop", None)]


@asynchronous
async def test_the_first_token_is_read_before_the_last_is_made(tmp_path: Path) -> None:
    async with Upstream() as up:
        more = asyncio.Event()
        up.answer = stream_of(["one ", more, "two"])
        async with talking(tmp_path, m=asks(up.base_url)) as (_, client), client.messages.stream(**ASKED) as stream:
            texts = aiter(stream.text_stream)
            first = await anext(texts)
            more.set()
            assert (first, await anext(texts)) == ("one ", "two")


@asynchronous
async def test_several_turns_pictures_and_what_the_system_says_reach_the_model(tmp_path: Path) -> None:
    picture = base64.b64encode(plain(4, 4).data).decode()
    async with Upstream() as up, talking(tmp_path, m=asks(up.base_url)) as (_, client):
        await client.messages.create(
            model="m",
            max_tokens=9,
            system=[
                {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "Be kind."},
            ],
            messages=[
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": picture},
                        },
                        {"type": "text", "text": "One?"},
                    ],
                },
                {"role": "assistant", "content": [{"type": "text", "text": "Two."}]},
                {"role": "system", "content": "Be quick."},
                {"role": "user", "content": "Three?"},
            ],
            stop_sequences=["END"],
            metadata={"user_id": "me"},
            output_config={"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}},
            extra_body={"temperature": 0.5, "top_p": 0.25, "top_k": 5},
        )
        body = up.requests[0].body
    assert body["messages"] == [
        {"role": "system", "content": "Be brief.\nBe kind.\n\nBe quick."},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
                {"type": "text", "text": "One?"},
            ],
        },
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "Three?"},
    ]
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    said = {key: body[key] for key in ("max_tokens", "temperature", "top_p", "stop", "top_k")}
    assert said == {"max_tokens": 9, "temperature": 0.5, "top_p": 0.25, "stop": ["END"], "top_k": 5}


@asynchronous
async def test_the_sequence_that_stopped_it_is_named_where_there_was_one(tmp_path: Path) -> None:
    async with talking(tmp_path, m=says("say:a; stop:stop_sequence")) as (_, client):
        answer = await client.messages.create(**ASKED, stop_sequences=["END"])
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "END")


@asynchronous
async def test_a_conversation_with_tools_runs_to_its_end(tmp_path: Path) -> None:
    async with talking(tmp_path, m=says('say:Now:; call:weather,{"city": "Ulm"}; echo')) as (_, client):
        asked = await client.messages.create(**ASKED, tools=[WEATHER], tool_choice={"type": "any"})
        text, call = asked.content
        assert text.type == "text"
        assert call.type == "tool_use"
        assert (call.id, call.name, call.input) == ("call_0", "weather", {"city": "Ulm"})
        assert asked.stop_reason == "tool_use"
        answer = await client.messages.create(
            model="m",
            max_tokens=9,
            tools=[WEATHER],
            messages=[
                *HI,
                {"role": "assistant", "content": asked.content},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"}]},
            ],
        )
    assert [block.text for block in answer.content if block.type == "text"] == ["Now:rain"]


@asynchronous
async def test_tool_calls_stream_in_pieces_that_the_client_joins(tmp_path: Path) -> None:
    script = 'say:Let me look.; call:weather,{"city": "Ulm"}; call:weather,{"city": "Bonn"}'
    async with (
        talking(tmp_path, m=says(script)) as (_, client),
        client.messages.stream(**ASKED, tools=[WEATHER]) as stream,
    ):
        final = await stream.get_final_message()
    assert [block.type for block in final.content] == ["text", "tool_use", "tool_use"]
    assert [block.input for block in final.content if block.type == "tool_use"] == [{"city": "Ulm"}, {"city": "Bonn"}]
    assert final.stop_reason == "tool_use"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking.type: expected one of 'adaptive'"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]"),
        ({"tool_choice": {"type": "any"}}, "tool_choice: a call is required, but there are no tools"),
        ({"mcp_servers": []}, "mcp_servers: unknown field"),
        ({"messages": []}, "messages: expected"),
        (
            {"messages": [{"role": "user", "content": [{"type": "document"}]}]},
            "messages[0].content[0].type: expected one of 'text', 'image'",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://a.b/c"}}]}
                ]
            },
            "messages[0].content[0].source.url: this server fetches no pictures from elsewhere",
        ),
    ],
)
@asynchronous
async def test_what_cannot_be_honoured_is_refused_with_a_sentence(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    async with talking(tmp_path, m=says("echo")) as (server, client):
        with pytest.raises(anthropic.BadRequestError) as refused:
            await client.messages.create(**{**ASKED, "extra_body": fields})
        assert not server.scripted.calls
    assert said in refused.value.message
    body: Any = refused.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert body["request_id"] == refused.value.request_id


@pytest.mark.parametrize(
    ("code", "kind", "told"),
    [
        ("rate_limited", anthropic.RateLimitError, "rate_limit_error"),
        ("model_error", anthropic.InternalServerError, "api_error"),
        ("unavailable", anthropic.InternalServerError, "overloaded_error"),
        ("invalid_request", anthropic.BadRequestError, "invalid_request_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
@asynchronous
async def test_an_error_is_the_clients_own_of_its_status(
    tmp_path: Path, code: str, kind: type[anthropic.APIStatusError], told: str, stream: bool
) -> None:
    async with talking(tmp_path, m=says(f"fail:{code}")) as (_, client):
        with pytest.raises(kind, match="The script says so") as failed:
            await client.messages.create(**ASKED, stream=stream)
    body: Any = failed.value.body
    assert body["error"]["type"] == told
    assert ("retry-after" in failed.value.response.headers) == (code == "rate_limited")


@asynchronous
async def test_an_error_in_mid_stream_is_raised_after_what_came(tmp_path: Path) -> None:
    async with (
        talking(tmp_path, m=says("say:one; fail:model_error")) as (_, client),
        client.messages.stream(**ASKED) as stream,
    ):
        texts = aiter(stream.text_stream)
        assert await anext(texts) == "one"
        with pytest.raises(anthropic.APIStatusError, match="The script says so"):
            await anext(texts)


@asynchronous
async def test_who_is_throttled_comes_back_when_it_was_told_to(tmp_path: Path) -> None:
    async with Upstream() as up, talking(tmp_path, retries=2, m=asks(up.base_url)) as (server, client):
        up.answer = refusal(429, headers={"Retry-After": "0.01"})
        asking = asyncio.create_task(client.messages.create(**ASKED))
        await up.asked(1)
        up.answer = stream_of(["at last"])
        assert (await asking).content[0].text == "at last"
        assert len(up.requests) == 2
        await server.ended()


@pytest.mark.parametrize("stream", [False, True])
@asynchronous
async def test_a_client_that_gives_up_ends_the_models_call(tmp_path: Path, stream: bool) -> None:
    async with Upstream() as up, talking(tmp_path, m=asks(up.base_url)) as (server, client):
        up.answer = hang()
        asking = asyncio.create_task(client.messages.create(**ASKED, stream=stream))
        await up.asked(1)
        asking.cancel()
        await up.idle()
        assert up.cancelled == 1
        await server.ended()


@asynchronous
async def test_a_stream_that_is_left_half_way_ends_the_models_call(tmp_path: Path) -> None:
    async with talking(tmp_path, m=says("say:one; hang")) as (server, client):
        async with client.messages.stream(**ASKED) as stream:
            await anext(aiter(stream.text_stream))
        await until(lambda: server.scripted.cancelled == 1)
        await server.ended()


@asynchronous
async def test_silence_is_kept_alive_by_pings(tmp_path: Path) -> None:
    async with Upstream() as up:
        more = asyncio.Event()
        up.answer = stream_of([more, "late"])
        async with (
            talking(tmp_path, "--heartbeat", "0.01", m=asks(up.base_url)) as (server, client),
            server.http.post(server.url + "/v1/messages", json={**ASKED, "stream": True}) as bare,
        ):
            for _ in range(2):  # the one that every stream begins with, and one for the silence
                await bare.content.readuntil(b"event: ping\ndata: {")
            async with client.messages.stream(**ASKED) as stream:
                await up.asked(2)
                more.set()
                assert await stream.get_final_text() == "late"


@asynchronous
async def test_models_are_the_presets(tmp_path: Path) -> None:
    async with talking(tmp_path, m=says("echo"), other=says("echo")) as (_, client):
        assert [model.id async for model in client.models.list()] == ["m", "other"]
        assert (await client.models.retrieve("other")).display_name == "other"
        with pytest.raises(anthropic.NotFoundError, match="not_found_error"):
            await client.models.retrieve("gone")
        with pytest.raises(anthropic.NotFoundError, match="No preset defines a model 'gone'"):
            await client.messages.create(**{**ASKED, "model": "gone"})


@asynchronous
async def test_the_clients_key_is_the_servers(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("right\n")
    async with talking(tmp_path, "--api-keys-file", str(keys), key="right", m=says("echo")) as (_, client):
        assert (await client.messages.create(**ASKED)).content
        with pytest.raises(anthropic.AuthenticationError, match="An API key is needed"):
            await client.with_options(api_key="wrong").messages.create(**ASKED)
