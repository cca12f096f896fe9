"""Texts of requests and responses as span attributes, where OpenTelemetry's variable enables it. Never pictures.

The formats are those of the JSON Schemas for messages in OpenTelemetry's semantic conventions.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.media.frames import EncodedFrame, Frame, Video
from pipeline.messages import Inference, Message, Result, ToolCall, ToolResult


def request_attributes(inference: Inference) -> dict[str, str | tuple[str, ...] | None]:
    """Return the attributes of a request, None for those that it does not set."""
    system = inference.request.system
    return {
        "gen_ai.input.messages": _json([_message(message) for message in inference.messages]),
        "gen_ai.system_instructions": _json([_text(system)]) if system else None,
        "gen_ai.request.stop_sequences": inference.parameters.stop or None,
    }


def response_attributes(result: Result) -> dict[str, str]:
    response = result.envelope["response"]
    parts = [_text(block["text"]) for block in response["content"] if block["text"]]
    parts += [_tool_call(call) for call in result.tool_calls]
    message = {"role": "assistant", "parts": parts, "finish_reason": response["stop_reason"]}
    return {"gen_ai.output.messages": _json([message])}


def _message(message: Message) -> dict[str, Any]:
    role = "tool" if message.tool_results else message.role
    return {"role": role, "parts": [encoded for part in message.parts if (encoded := _part(part)) is not None]}


def _part(part: str | EncodedFrame | Frame | Video | ToolCall | ToolResult) -> dict[str, Any] | None:
    match part:
        case str():
            return _text(part)
        case ToolCall():
            return _tool_call(part)
        case ToolResult(id, text):
            return {"type": "tool_call_response", "id": id, "response": text}
    return None


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "content": text}


def _tool_call(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
