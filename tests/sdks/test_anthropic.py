"""Anthropic's Python client, unmodified, against a running server."""

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

from tests.async_tests import async_test
from tests.pipeline.media.make_pictures import plain_picture
from tests.running_server import RunningServer, running_server, scripted_model, spin_until, upstream_model
from tests.upstream import Upstream, error_response, hanging_response, stream_response

HI: list[MessageParam] = [{"role": "user", "content": "Hi there"}]
REQUEST: dict[str, Any] = {"model": "m", "max_tokens": 99, "messages": HI}
WEATHER: ToolParam = {
    "name": "weather",
    "description": "How it is outside",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@asynccontextmanager
async def start_client(
    folder: Path, *flags: str, retries: int = 0, key: str = "none", **models: Mapping[str, Any]
) -> AsyncIterator[tuple[RunningServer, AsyncAnthropic]]:
    async with (
        running_server(folder, *flags, models=models) as server,
        AsyncAnthropic(base_url=server.url, api_key=key, max_retries=retries) as client,
    ):
        yield server, client


@async_test
async def test_response_has_text_stop_reason_and_usage(tmp_path: Path) -> None:
    async with start_client(tmp_path, m=scripted_model("echo; usage:3,4")) as (_, client):
        response = await client.messages.create(**REQUEST)
    assert (response.type, response.role, response.model, response.id[:4]) == ("message", "assistant", "m", "msg_")
    (block,) = response.content
    assert block.type == "text"
    assert (block.text, response.stop_reason, response.stop_sequence) == ("Hi there", "end_turn", None)
    assert (response.usage.input_tokens, response.usage.output_tokens) == (3, 4)


@async_test
async def test_stream_yields_text_and_final_message(tmp_path: Path) -> None:
    async with (
        start_client(tmp_path, m=scripted_model("chunks:3; usage:3,4; stop:max_tokens")) as (_, client),
        client.messages.stream(**REQUEST) as stream,
    ):
        texts = [text async for text in stream.text_stream]
        final = await stream.get_final_message()
    assert texts == ["tok0 ", "tok1 ", "tok2 "]
    assert final.content[0].type == "text"
    assert (final.content[0].text, final.stop_reason) == ("tok0 tok1 tok2 ", "max_tokens")
    assert (final.usage.input_tokens, final.usage.output_tokens) == (3, 4)


@async_test
async def test_stream_events_have_anthropic_order(tmp_path: Path) -> None:
    async with start_client(tmp_path, m=scripted_model("say:one; call:weather,{}; say:two")) as (_, client):
        stream = await client.messages.create(**REQUEST, tools=[WEATHER], stream=True)
        events = [(event.type, getattr(event, "index", None)) async for event in stream]
    expected: list[tuple[str, int | None]] = [("message_start", None)]
    for index, deltas in enumerate((1, 2, 1)):  # the tool's arguments come in two pieces
        expected += [(event_type, index) for event_type in ["content_block_start", *["content_block_delta"] * deltas]]
        expected.append(("content_block_stop", index))
    assert events == [*expected, ("message_delta", None), ("message_stop", None)]


@async_test
async def test_stream_delivers_first_token_before_last_exists(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        release = asyncio.Event()
        upstream.response = stream_response(["one ", release, "two"])
        async with (
            start_client(tmp_path, m=upstream_model(upstream.base_url)) as (_, client),
            client.messages.stream(**REQUEST) as stream,
        ):
            texts = aiter(stream.text_stream)
            first = await anext(texts)
            release.set()
            assert (first, await anext(texts)) == ("one ", "two")


@async_test
async def test_turns_pictures_and_system_text_reach_upstream(tmp_path: Path) -> None:
    picture = base64.b64encode(plain_picture(4, 4).data).decode()
    async with Upstream() as upstream, start_client(tmp_path, m=upstream_model(upstream.base_url)) as (_, client):
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
        body = upstream.requests[0].body
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
    parameters = {key: body[key] for key in ("max_tokens", "temperature", "top_p", "stop", "top_k")}
    assert parameters == {"max_tokens": 9, "temperature": 0.5, "top_p": 0.25, "stop": ["END"], "top_k": 5}


@async_test
async def test_stop_sequence_is_named_if_only_one_was_sent(tmp_path: Path) -> None:
    async with start_client(tmp_path, m=scripted_model("say:a; stop:stop_sequence")) as (_, client):
        response = await client.messages.create(**REQUEST, stop_sequences=["END"])
    assert (response.stop_reason, response.stop_sequence) == ("stop_sequence", "END")


@async_test
async def test_tool_conversation_completes(tmp_path: Path) -> None:
    async with start_client(tmp_path, m=scripted_model('say:Now:; call:weather,{"city": "Ulm"}; echo')) as (_, client):
        first = await client.messages.create(**REQUEST, tools=[WEATHER], tool_choice={"type": "any"})
        text, call = first.content
        assert text.type == "text"
        assert call.type == "tool_use"
        assert (call.id, call.name, call.input) == ("call_0", "weather", {"city": "Ulm"})
        assert first.stop_reason == "tool_use"
        second = await client.messages.create(
            model="m",
            max_tokens=9,
            tools=[WEATHER],
            messages=[
                *HI,
                {"role": "assistant", "content": first.content},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"}]},
            ],
        )
    assert [block.text for block in second.content if block.type == "text"] == ["Now:rain"]


@async_test
async def test_tool_calls_stream_as_deltas(tmp_path: Path) -> None:
    script = 'say:Let me look.; call:weather,{"city": "Ulm"}; call:weather,{"city": "Bonn"}'
    async with (
        start_client(tmp_path, m=scripted_model(script)) as (_, client),
        client.messages.stream(**REQUEST, tools=[WEATHER]) as stream,
    ):
        final = await stream.get_final_message()
    assert [block.type for block in final.content] == ["text", "tool_use", "tool_use"]
    assert [block.input for block in final.content if block.type == "tool_use"] == [{"city": "Ulm"}, {"city": "Bonn"}]
    assert final.stop_reason == "tool_use"


@pytest.mark.parametrize(
    ("fields", "message"),
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
@async_test
async def test_unsupported_field_is_rejected_with_reason(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    async with start_client(tmp_path, m=scripted_model("echo")) as (server, client):
        with pytest.raises(anthropic.BadRequestError) as error:
            await client.messages.create(**{**REQUEST, "extra_body": fields})
        assert not server.scripted.calls
    assert message in error.value.message
    body: Any = error.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert body["request_id"] == error.value.request_id


@pytest.mark.parametrize(
    ("code", "exception", "error_type"),
    [
        ("rate_limited", anthropic.RateLimitError, "rate_limit_error"),
        ("model_error", anthropic.InternalServerError, "api_error"),
        ("unavailable", anthropic.InternalServerError, "overloaded_error"),
        ("invalid_request", anthropic.BadRequestError, "invalid_request_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
@async_test
async def test_error_raises_client_exception_of_its_status(
    tmp_path: Path, code: str, exception: type[anthropic.APIStatusError], error_type: str, stream: bool
) -> None:
    async with start_client(tmp_path, m=scripted_model(f"fail:{code}")) as (_, client):
        with pytest.raises(exception, match="The script says so") as error:
            await client.messages.create(**REQUEST, stream=stream)
    body: Any = error.value.body
    assert body["error"]["type"] == error_type
    assert ("retry-after" in error.value.response.headers) == (code == "rate_limited")


@async_test
async def test_error_in_mid_stream_is_raised_after_received_chunks(tmp_path: Path) -> None:
    async with (
        start_client(tmp_path, m=scripted_model("say:one; fail:model_error")) as (_, client),
        client.messages.stream(**REQUEST) as stream,
    ):
        texts = aiter(stream.text_stream)
        assert await anext(texts) == "one"
        with pytest.raises(anthropic.APIStatusError, match="The script says so"):
            await anext(texts)


@async_test
async def test_client_retries_after_retry_after(tmp_path: Path) -> None:
    async with (
        Upstream() as upstream,
        start_client(tmp_path, retries=2, m=upstream_model(upstream.base_url)) as (server, client),
    ):
        upstream.response = error_response(429, headers={"Retry-After": "0.01"})
        task = asyncio.create_task(client.messages.create(**REQUEST))
        await upstream.wait_for_requests(1)
        upstream.response = stream_response(["at last"])
        assert (await task).content[0].text == "at last"
        assert len(upstream.requests) == 2
        await server.wait_until_idle()


@pytest.mark.parametrize("stream", [False, True])
@async_test
async def test_cancelled_request_cancels_upstream_call(tmp_path: Path, stream: bool) -> None:
    async with Upstream() as upstream, start_client(tmp_path, m=upstream_model(upstream.base_url)) as (server, client):
        upstream.response = hanging_response()
        task = asyncio.create_task(client.messages.create(**REQUEST, stream=stream))
        await upstream.wait_for_requests(1)
        task.cancel()
        await upstream.wait_until_idle()
        assert upstream.cancelled == 1
        await server.wait_until_idle()


@async_test
async def test_abandoned_stream_cancels_upstream_call(tmp_path: Path) -> None:
    async with start_client(tmp_path, m=scripted_model("say:one; hang")) as (server, client):
        async with client.messages.stream(**REQUEST) as stream:
            await anext(aiter(stream.text_stream))
        await spin_until(lambda: server.scripted.cancelled == 1)
        await server.wait_until_idle()


@async_test
async def test_idle_stream_sends_pings(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        release = asyncio.Event()
        upstream.response = stream_response([release, "late"])
        async with (
            start_client(tmp_path, "--heartbeat", "0.01", m=upstream_model(upstream.base_url)) as (server, client),
            server.http.post(server.url + "/v1/messages", json={**REQUEST, "stream": True}) as raw_response,
        ):
            for _ in range(2):  # the one that every stream begins with, and one for the silence
                await raw_response.content.readuntil(b"event: ping\ndata: {")
            async with client.messages.stream(**REQUEST) as stream:
                await upstream.wait_for_requests(2)
                release.set()
                assert await stream.get_final_text() == "late"


@async_test
async def test_models_list_presets(tmp_path: Path) -> None:
    async with start_client(tmp_path, m=scripted_model("echo"), other=scripted_model("echo")) as (_, client):
        assert [model.id async for model in client.models.list()] == ["m", "other"]
        assert (await client.models.retrieve("other")).display_name == "other"
        with pytest.raises(anthropic.NotFoundError, match="not_found_error"):
            await client.models.retrieve("gone")
        with pytest.raises(anthropic.NotFoundError, match="No preset defines a model 'gone'"):
            await client.messages.create(**{**REQUEST, "model": "gone"})


@async_test
async def test_client_api_key_is_checked(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("right\n")
    async with start_client(tmp_path, "--api-keys-file", str(keys), key="right", m=scripted_model("echo")) as (
        _,
        client,
    ):
        assert (await client.messages.create(**REQUEST)).content
        with pytest.raises(anthropic.AuthenticationError, match="An API key is needed"):
            await client.with_options(api_key="wrong").messages.create(**REQUEST)
