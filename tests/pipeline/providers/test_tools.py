"""Tools on their way: to Bedrock and to upstreams of OpenAI's shape, and calls of them back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from pipeline.errors import InvalidRequest
from pipeline.messages import Inference, Message, Stop, Tool, ToolCall, ToolCallPiece, ToolChoice, ToolResult, Usage
from tests.aio import asynchronous
from tests.aws.script import calls, says
from tests.pipeline.providers import asking, on_bedrock
from tests.pipeline.providers.asking import ask, inference
from tests.upstream import raw

WEATHER = Tool("weather", "How it is", {"type": "object", "properties": {"city": {"type": "string"}}})
TURNS = (
    Message("user", ("And?",)),
    Message("assistant", ("Let me look.", ToolCall("c0", "weather", '{"city":"Ulm"}'))),
    Message("user", (ToolResult("c0", "rain"),)),
    Message("user", (ToolResult("c1", "no", failed=True), "So?")),
)


def with_tools(*turns: Message, choice: ToolChoice | None = None) -> Inference:
    asked = inference(*turns)
    request = replace(asked.request, tools=(WEATHER,), tool_choice=choice or ToolChoice())
    return replace(asked, request=request)


@asynchronous
async def test_bedrock_is_sent_tools_calls_and_results_in_turns_that_alternate() -> None:
    async with on_bedrock.talking() as (aws, provider, to):
        await ask(provider, to, with_tools(*TURNS))
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
    ("choice", "sent"),
    [
        (ToolChoice("required"), {"any": {}}),
        (ToolChoice("named", "weather"), {"tool": {"name": "weather"}}),
        (ToolChoice("none"), None),
    ],
)
@asynchronous
async def test_bedrock_is_told_which_tool_to_call(choice: ToolChoice, sent: Any) -> None:
    async with on_bedrock.talking() as (aws, provider, to):
        await ask(provider, to, with_tools(choice=choice))
        config = aws.requests[0].body.get("toolConfig")
    assert (config and config["toolChoice"]) == sent


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (with_tools(*TURNS, choice=ToolChoice("none")), "Bedrock can't be told to call none"),
        (with_tools(Message("assistant", (ToolCall("c0", "weather", "{"),))), "'c0' are not a JSON object"),
    ],
)
@asynchronous
async def test_what_bedrock_can_not_be_told_is_refused(asked: Inference, said: str) -> None:
    async with on_bedrock.talking() as (aws, provider, to):
        with pytest.raises(InvalidRequest, match=said):
            await ask(provider, to, asked)
        assert not aws.requests


@asynchronous
async def test_calls_stream_from_bedrock_in_pieces() -> None:
    said = says("Look:", calls("c1", "weather", city="Ulm"), calls("c2", "weather"), stop="tool_use")
    async with on_bedrock.talking(said) as (_, provider, to):
        parts = await ask(provider, to, with_tools())
    assert parts == [
        "Look:",
        ToolCallPiece(0, "c1", "weather", ""),
        ToolCallPiece(0, "", "", "{"),
        ToolCallPiece(0, "", "", '"city": "Ulm"}'),
        ToolCallPiece(1, "c2", "weather", ""),
        ToolCallPiece(1, "", "", "{"),
        ToolCallPiece(1, "", "", "}"),
        Stop("tool_use"),
        Usage(3, 2),
    ]


@asynchronous
async def test_calls_come_whole_from_bedrock_where_it_does_not_stream() -> None:
    said = says("Look:", calls("c1", "weather", city="Ulm"), stop="tool_use")
    async with on_bedrock.talking(said, capabilities=on_bedrock.PLAIN) as (_, provider, to):
        parts = await ask(provider, to, with_tools())
    assert parts == ["Look:", ToolCallPiece(0, "c1", "weather", '{"city":"Ulm"}'), Stop("tool_use"), Usage(3, 2)]


@asynchronous
async def test_an_upstream_of_openais_shape_is_sent_each_result_as_a_turn_of_its_own() -> None:
    async with asking.talking() as (up, provider, to):
        await ask(provider, to, with_tools(*TURNS, choice=ToolChoice("required")))
        body = up.requests[0].body
    call = {"id": "c0", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Ulm"}'}}
    assert body["messages"][1:] == [
        {"role": "assistant", "content": "Let me look.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c0", "content": "rain"},
        {"role": "tool", "tool_call_id": "c1", "content": "no"},
        {"role": "user", "content": "So?"},
    ]
    function = {"name": "weather", "description": "How it is", "parameters": WEATHER.parameters}
    assert (body["tools"], body["tool_choice"]) == ([{"type": "function", "function": function}], "required")


@asynchronous
async def test_calls_come_whole_from_such_an_upstream_where_it_does_not_stream() -> None:
    made = [{"id": f"c{n}", "type": "function", "function": {"name": "weather", "arguments": "{}"}} for n in (0, 1)]
    choice = {"message": {"role": "assistant", "content": None, "tool_calls": made}, "finish_reason": "tool_calls"}
    async with asking.talking(raw([json.dumps({"choices": [choice]}).encode()])) as (_, provider, to):
        parts = await ask(provider, to, with_tools())
    assert parts[:2] == [ToolCallPiece(0, "c0", "weather", "{}"), ToolCallPiece(1, "c1", "weather", "{}")]
    assert parts[2] == Stop("tool_use")
