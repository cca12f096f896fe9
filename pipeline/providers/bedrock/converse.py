"""Inferences as Converse requests, and the responses of Converse and ConverseStream as response parts.

One format serves Claude and Nova alike.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import msgspec

from pipeline.aws.errors import translate_errors
from pipeline.envelope import StopReason
from pipeline.errors import ForgelineError, InvalidRequest, ModelError
from pipeline.media.frames import EncodedFrame, Frame, Video
from pipeline.messages import (
    Chunk,
    Finish,
    Inference,
    InferenceRequest,
    Message,
    Reasoning,
    ResponsePart,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    Usage,
)

_STOP_REASONS: Final[dict[str, StopReason]] = {
    "end_turn": "end_turn",
    "max_tokens": "max_tokens",
    "model_context_window_exceeded": "max_tokens",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_use",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
}


def encode_request(model: str, inference: Inference) -> dict[str, Any]:
    """The arguments of `converse` and `converse_stream`. Parameters that are None are left out."""
    parameters, system = inference.parameters, inference.request.system
    inference_config = {
        "maxTokens": parameters.max_tokens,
        "temperature": parameters.temperature,
        "topP": parameters.top_p,
        "stopSequences": list(parameters.stop) or None,
    }
    request: dict[str, Any] = {
        "modelId": model,
        "messages": [
            _encode_turn(role, [*messages])
            for role, messages in groupby(inference.messages, lambda message: message.role)
        ],
        "inferenceConfig": {key: value for key, value in inference_config.items() if value is not None},
    }
    if system:
        request["system"] = [{"text": system}]
    if (tools := _encode_tools(inference.request)) is not None:
        request["toolConfig"] = tools
    return request


def _encode_turn(role: str, messages: list[Message]) -> dict[str, Any]:
    """Consecutive messages of one role become one turn, because Converse requires alternating roles.

    Blank texts are left out, because Bedrock rejects them, even beside pictures; a turn of blank texts alone is sent as
    it is.
    """
    parts = [part for message in messages for part in message.parts]
    not_blank = [part for part in parts if not isinstance(part, str) or part.strip()]
    return {"role": role, "content": [_encode_block(part) for part in not_blank or parts]}


def _encode_block(part: str | EncodedFrame | Frame | Video | ToolCall | ToolResult) -> dict[str, Any]:
    """Media stay raw bytes here: `bedrock.media` encodes them as base64."""
    match part:
        case str():
            return {"text": part}
        case ToolCall(id, name):
            return {"toolUse": {"toolUseId": id, "name": name, "input": _decode_arguments(part)}}
        case ToolResult(id, text, failed):
            status = "error" if failed else "success"
            return {"toolResult": {"toolUseId": id, "content": [{"text": text}], "status": status}}
    media = part.decode() if isinstance(part, EncodedFrame) else part
    kind = "image" if isinstance(media, Frame) else "video"
    return {kind: {"format": media.kind, "source": {"bytes": media.data}}}


def _decode_arguments(call: ToolCall) -> dict[str, Any]:
    try:
        return msgspec.json.decode(call.arguments or "{}", type=dict[str, Any])
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"The arguments of the tool call {call.id!r} are not a JSON object.") from error


def _encode_tools(request: InferenceRequest) -> dict[str, Any] | None:
    if not request.tools:
        return None
    choice = request.tool_choice
    if choice.kind == "none":
        if any(message.tool_calls or message.tool_results for message in request.messages):
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
    tool_choices: dict[str, dict[str, dict[str, str]]] = {
        "auto": {"auto": {}},
        "required": {"any": {}},
        "named": {"tool": {"name": choice.name}},
    }
    return {"tools": tools, "toolChoice": tool_choices[choice.kind]}


def read_response(output: Mapping[str, Any]) -> Iterator[ResponsePart]:
    """The parts of what `converse` returned."""
    calls = 0
    for block in output["output"]["message"]["content"]:
        if (call := block.get("toolUse")) is not None:
            arguments = msgspec.json.encode(call["input"]).decode()
            yield ToolCallDelta(calls, call["toolUseId"], call["name"], arguments)
            calls += 1
        yield from _content_chunks(block.get("text"), block.get("reasoningContent", {}).get("reasoningText"))
    yield from _final_parts(output.get("stopReason"), output.get("usage"))


async def read_stream(
    events: AsyncIterable[Mapping[str, Any]], model: str
) -> AsyncGenerator[Sequence[ResponsePart], None]:
    """The parts of a ConverseStream, one batch for each event; Finish and Usage last.

    `model` names the model in errors. Raises the errors of `pipeline.aws.errors` for an exception among the events, and
    ModelError if the stream is damaged or ends before its stop reason.
    """
    stop_reason: str | None = None
    usage: Mapping[str, Any] | None = None
    calls = 0
    try:
        with translate_errors(model):
            async for event in events:
                if (block_delta := event.get("contentBlockDelta")) is not None:
                    delta = block_delta["delta"]
                    if chunks := _content_chunks(delta.get("text"), delta.get("reasoningContent")):
                        yield chunks
                    if (tool_use := delta.get("toolUse")) is not None:
                        yield [ToolCallDelta(calls - 1, "", "", tool_use["input"])]
                elif (call := event.get("contentBlockStart", {}).get("start", {}).get("toolUse")) is not None:
                    yield [ToolCallDelta(calls, call["toolUseId"], call["name"], "")]
                    calls += 1
                elif (message_stop := event.get("messageStop")) is not None:
                    stop_reason = message_stop.get("stopReason", "")
                elif (metadata := event.get("metadata")) is not None:  # comes after messageStop
                    usage = metadata.get("usage")
    except ForgelineError:
        if stop_reason is None:
            raise  # after the stop reason the text is complete: only the usage is lost
    if stop_reason is None:
        raise ModelError(f"{model} failed: its answer broke off before its end.")
    yield _final_parts(stop_reason, usage)


def _content_chunks(text: str | None, reasoning: Mapping[str, Any] | None) -> Sequence[Chunk]:
    if text:
        return [text]
    return [Reasoning(reasoning["text"])] if reasoning and reasoning.get("text") else []


def _final_parts(stop_reason: str | None, usage: Mapping[str, Any] | None) -> tuple[Finish, Usage]:
    tokens = usage or {}
    return Finish(_STOP_REASONS.get(stop_reason or "", "other")), Usage(
        tokens.get("inputTokens"),
        tokens.get("outputTokens"),
        tokens.get("cacheReadInputTokens"),
        tokens.get("cacheWriteInputTokens"),
    )
