"""Inferences as Converse requests, and what Converse and ConverseStream answer as a reply's parts.

No provider of its own: `bedrock` sends and receives what is made and read here. One shape serves Claude and Nova alike.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec

from pipeline.errors import ForgelineError, InvalidRequest, ModelError
from pipeline.frames import EncodedFrame, Frame, Video
from pipeline.messages import (
    Chunk,
    Inference,
    InferenceRequest,
    Message,
    Part,
    Reasoning,
    Stop,
    StopReason,
    ToolCall,
    ToolCallPiece,
    ToolResult,
    Usage,
)
from pipeline.providers.aws_errors import translating

_REASONS: Final[dict[str, StopReason]] = {
    "end_turn": "end_turn",
    "max_tokens": "max_tokens",
    "model_context_window_exceeded": "max_tokens",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_use",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
}


def encode_request(model: str, inference: Inference) -> dict[str, Any]:
    """The arguments of `converse` and `converse_stream`. What is None in the parameters is not sent."""
    parameters, system = inference.parameters, inference.request.system
    settings = {
        "maxTokens": parameters.max_tokens,
        "temperature": parameters.temperature,
        "topP": parameters.top_p,
        "stopSequences": list(parameters.stop) or None,
    }
    request: dict[str, Any] = {
        "modelId": model,
        "messages": [_turn(role, [*said]) for role, said in groupby(inference.messages, lambda one: one.role)],
        "inferenceConfig": {key: value for key, value in settings.items() if value is not None},
    }
    if system:
        request["system"] = [{"text": system}]
    if (tools := _tool_config(inference.request)) is not None:
        request["toolConfig"] = tools
    return request


def _turn(role: str, messages: list[Message]) -> dict[str, Any]:
    """Messages of one role in a row are one turn, for Converse wants roles that alternate.

    Bedrock refuses a blank text, even beside pictures; where nothing else was said it has to go all the same.
    """
    parts = [part for message in messages for part in message.parts]
    said = [part for part in parts if not isinstance(part, str) or part.strip()]
    return {"role": role, "content": [_block(part) for part in said or parts]}


def _block(part: str | EncodedFrame | Frame | Video | ToolCall | ToolResult) -> dict[str, Any]:
    """The bytes themselves: `converse_media` makes base64 of them."""
    match part:
        case str():
            return {"text": part}
        case ToolCall(id, name):
            return {"toolUse": {"toolUseId": id, "name": name, "input": _arguments(part)}}
        case ToolResult(id, text, failed):
            status = "error" if failed else "success"
            return {"toolResult": {"toolUseId": id, "content": [{"text": text}], "status": status}}
    media = part.decode() if isinstance(part, EncodedFrame) else part
    name = "image" if isinstance(media, Frame) else "video"
    return {name: {"format": media.kind, "source": {"bytes": media.data}}}


def _arguments(call: ToolCall) -> dict[str, Any]:
    try:
        return msgspec.json.decode(call.arguments or "{}", type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"The arguments of the tool call {call.id!r} are not a JSON object.") from error


def _tool_config(request: InferenceRequest) -> dict[str, Any] | None:
    if not request.tools:
        return None
    choice = request.tool_choice
    if choice.kind == "none":
        if any(message.calls or message.results for message in request.messages):
            raise InvalidRequest("tool_choice: Bedrock can't be told to call none of the tools of a conversation.")
        return None
    tools = [
        {
            "toolSpec": {
                "name": tool.name,
                **({"description": tool.description} if tool.description else {}),
                "inputSchema": {"json": dict(tool.parameters)},
            }
        }
        for tool in request.tools
    ]
    chosen: dict[str, dict[str, dict[str, str]]] = {
        "auto": {"auto": {}},
        "required": {"any": {}},
        "named": {"tool": {"name": choice.name}},
    }
    return {"tools": tools, "toolChoice": chosen[choice.kind]}


def read_answer(answer: Mapping[str, Any]) -> Iterator[Part]:
    """The parts of what `converse` returned."""
    calls = 0
    for block in answer["output"]["message"]["content"]:
        if (call := block.get("toolUse")) is not None:
            written = msgspec.json.encode(call["input"]).decode()
            yield ToolCallPiece(calls, call["toolUseId"], call["name"], written)
            calls += 1
        yield from _chunks(block.get("text"), block.get("reasoningContent", {}).get("reasoningText"))
    yield from _ending(answer.get("stopReason"), answer.get("usage"))


async def read_stream(events: AsyncIterable[Mapping[str, Any]], what: str) -> AsyncGenerator[Sequence[Part], None]:
    """The parts of a ConverseStream, those of each event at once, Stop and Usage last.

    `what` names the model in errors. Raises what `aws_errors` makes of an exception among the events, and ModelError
    where the stream is damaged or ends before the model has said why it stopped.
    """
    reason: str | None = None
    usage: Mapping[str, Any] | None = None
    calls = 0
    try:
        with translating(what):
            async for event in events:
                if (delta := event.get("contentBlockDelta")) is not None:
                    if chunks := _chunks(delta["delta"].get("text"), delta["delta"].get("reasoningContent")):
                        yield chunks
                    if (piece := delta["delta"].get("toolUse")) is not None:
                        yield [ToolCallPiece(calls - 1, "", "", piece["input"])]
                elif (call := event.get("contentBlockStart", {}).get("start", {}).get("toolUse")) is not None:
                    yield [ToolCallPiece(calls, call["toolUseId"], call["name"], "")]
                    calls += 1
                elif (stop := event.get("messageStop")) is not None:
                    reason = stop.get("stopReason", "")
                elif (told := event.get("metadata")) is not None:  # comes after messageStop
                    usage = told.get("usage")
    except ForgelineError:
        if reason is None:
            raise  # else the text is whole: what was lost is the usage
    if reason is None:
        raise ModelError(f"{what} failed: its answer broke off before its end.")
    yield _ending(reason, usage)


def _chunks(text: str | None, thought: Mapping[str, Any] | None) -> Sequence[Chunk]:
    if text:
        return [text]
    return [Reasoning(thought["text"])] if thought and thought.get("text") else []


def _ending(reason: str | None, usage: Mapping[str, Any] | None) -> tuple[Stop, Usage]:
    told = usage or {}
    return Stop(_REASONS.get(reason or "", "other")), Usage(
        told.get("inputTokens"),
        told.get("outputTokens"),
        told.get("cacheReadInputTokens"),
        told.get("cacheWriteInputTokens"),
    )
