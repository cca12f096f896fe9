"""Tools in requests to Bedrock and OpenAI-compatible upstreams, and tool calls in their responses."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pipeline.errors import InvalidRequest
from pipeline.messages import Finish, Inference, Message, Tool, ToolCall, ToolCallDelta, ToolChoice, ToolResult, Usage
from tests.async_tests import async_test
from tests.aws.scripted_responses import text_response, tool_use
from tests.pipeline.providers.bedrock.helpers import WITHOUT_STREAM, aws_and_provider
from tests.pipeline.providers.helpers import collect_parts, make_inference, upstream_and_provider
from tests.upstream import raw_response

WEATHER = Tool("weather", "How it is", {"type": "object", "properties": {"city": {"type": "string"}}})
TURNS = (
    Message("user", ("And?",)),
    Message("assistant", ("Let me look.", ToolCall("c0", "weather", '{"city":"Ulm"}'))),
    Message("user", (ToolResult("c0", "rain"),)),
    Message("user", (ToolResult("c1", "no", failed=True), "So?")),
)


def with_tools(*turns: Message, choice: ToolChoice | None = None) -> Inference:
    inference = make_inference(*turns)
    request = replace(inference.request, tools=(WEATHER,), tool_choice=choice or ToolChoice())
    return replace(inference, request=request)


@async_test
async def test_bedrock_request_has_tools_calls_and_results_in_alternating_turns() -> None:
    async with aws_and_provider() as (aws, provider, target):
        await collect_parts(provider, target, with_tools(*TURNS))
        body = aws.requests[0].body
    assert body["messages"] == [
        {"role": "user", "content": [{"text": "And?"}]},
        {
            "role": "assistant",
            "content": [
                {"text": "Let me look."},
                {"toolUse": {"toolUseId": "c0", "name": "weather", "input": {"city": "Ulm"}}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "c0", "content": [{"text": "rain"}], "status": "success"}},
                {"toolResult": {"toolUseId": "c1", "content": [{"text": "no"}], "status": "error"}},
                {"text": "So?"},
            ],
        },
    ]
    spec = {"name": "weather", "description": "How it is", "inputSchema": {"json": WEATHER.parameters}}
    assert body["toolConfig"] == {"tools": [{"toolSpec": spec}], "toolChoice": {"auto": {}}}


@pytest.mark.parametrize(
    ("choice", "tool_choice"),
    [
        (ToolChoice("required"), {"any": {}}),
        (ToolChoice("named", "weather"), {"tool": {"name": "weather"}}),
        (ToolChoice("none"), None),
    ],
)
@async_test
async def test_bedrock_request_has_tool_choice(choice: ToolChoice, tool_choice: Any) -> None:
    async with aws_and_provider() as (aws, provider, target):
        await collect_parts(provider, target, with_tools(choice=choice))
        config = aws.requests[0].body.get("toolConfig")
    assert (config and config["toolChoice"]) == tool_choice


@pytest.mark.parametrize(
    ("inference", "message"),
    [
        (with_tools(*TURNS, choice=ToolChoice("none")), "Bedrock can't be told to call none"),
        (with_tools(Message("assistant", (ToolCall("c0", "weather", "{"),))), "'c0' are not a JSON object"),
    ],
)
@async_test
async def test_bedrock_rejects_unsupported_tool_choice_and_bad_arguments(inference: Inference, message: str) -> None:
    async with aws_and_provider() as (aws, provider, target):
        with pytest.raises(InvalidRequest, match=message):
            await collect_parts(provider, target, inference)
        assert not aws.requests


@async_test
async def test_bedrock_stream_yields_tool_call_deltas() -> None:
    scripted = text_response(
        "Look:", tool_use("c1", "weather", city="Ulm"), tool_use("c2", "weather"), stop_reason="tool_use"
    )
    async with aws_and_provider(scripted) as (_, provider, target):
        parts = await collect_parts(provider, target, with_tools())
    assert parts == [
        "Look:",
        ToolCallDelta(0, "c1", "weather", ""),
        ToolCallDelta(0, "", "", "{"),
        ToolCallDelta(0, "", "", '"city": "Ulm"}'),
        ToolCallDelta(1, "c2", "weather", ""),
        ToolCallDelta(1, "", "", "{"),
        ToolCallDelta(1, "", "", "}"),
        Finish("tool_use"),
        Usage(3, 2),
    ]


@async_test
async def test_bedrock_without_stream_yields_whole_tool_call() -> None:
    scripted = text_response("Look:", tool_use("c1", "weather", city="Ulm"), stop_reason="tool_use")
    async with aws_and_provider(scripted, capabilities=WITHOUT_STREAM) as (_, provider, target):
        parts = await collect_parts(provider, target, with_tools())
    assert parts == ["Look:", ToolCallDelta(0, "c1", "weather", '{"city":"Ulm"}'), Finish("tool_use"), Usage(3, 2)]


@async_test
async def test_openai_request_has_one_message_per_tool_result() -> None:
    async with upstream_and_provider() as (upstream, provider, target):
        await collect_parts(provider, target, with_tools(*TURNS, choice=ToolChoice("required")))
        body = upstream.requests[0].body
    call = {"id": "c0", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}
    assert body["messages"][1:] == [
        {"role": "assistant", "content": "Let me look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c0", "content": "rain"},
        {"role": "tool", "tool_call_id": "c1", "content": "no"},
        {"role": "user", "content": "So?"},
    ]
    function = {"name": "weather", "description": "How it is", "parameters": WEATHER.parameters}
    assert (body["tools"], body["tool_choice"]) == ([{"type": "function", "function": function}], "required")


@async_test
async def test_openai_without_stream_yields_whole_tool_calls() -> None:
    calls = [{"id": f"c{n}", "type": "function", "function": {"name": "weather", "arguments": "{}"}} for n in (0, 1)]
    choice = {"message": {"role": "assistant", "content": None, "tool_calls": calls}, "finish_reason": "tool_calls"}
    async with upstream_and_provider(raw_response([json.dumps({"choices": [choice]}).encode()])) as (
        _,
        provider,
        target,
    ):
        parts = await collect_parts(provider, target, with_tools())
    assert parts[:2] == [ToolCallDelta(0, "c0", "weather", "{}"), ToolCallDelta(1, "c1", "weather", "{}")]
    assert parts[2] == Finish("tool_use")
