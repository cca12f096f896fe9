"""What was asked and answered, as a span holds it: only where OpenTelemetry's variable asks for text. Never a picture.

The shapes are those of the conventions' JSON Schemas for messages.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.frames import EncodedFrame, Frame, Video
from pipeline.messages import Inference, Message, Result, ToolCall, ToolResult


def asked(inference: Inference) -> dict[str, str | tuple[str, ...] | None]:
    """Attributes of a request, None for what it does not say."""
    system = inference.request.system
    return {
        "gen_ai.input.messages": _json([_message(message) for message in inference.messages]),
        "gen_ai.system_instructions": _json([_text(system)]) if system else None,
        "gen_ai.request.stop_sequences": inference.parameters.stop or None,
    }


def answered(result: Result) -> dict[str, str]:
    response = result.envelope["response"]
    parts = [_text(block["text"]) for block in response["content"] if block["text"]]
    parts += [_call(call) for call in result.calls]
    message = {"role": "assistant", "parts": parts, "finish_reason": response["stop_reason"]}
    return {"gen_ai.output.messages": _json([message])}


def _message(message: Message) -> dict[str, Any]:
    role = "tool" if message.results else message.role
    return {"role": role, "parts": [part for said in message.parts if (part := _part(said)) is not None]}


def _part(said: str | EncodedFrame | Frame | Video | ToolCall | ToolResult) -> dict[str, Any] | None:
    match said:
        case str():
            return _text(said)
        case ToolCall():
            return _call(said)
        case ToolResult(id, text):
            return {"type": "tool_call_response", "id": id, "response": text}
    return None


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "content": text}


def _call(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
