"""The JSON body of an OpenAI-compatible `/chat/completions` request, made from an inference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from pipeline.errors import InvalidRequest
from pipeline.media.frames import EncodedFrame, Frame, Video
from pipeline.messages import Inference, Message, Tool, ToolCall, ToolChoice

EXTRA_FIELDS: Final = (
    "chat_template_kwargs",
    "frequency_penalty",
    "logit_bias",
    "min_p",
    "parallel_tool_calls",
    "presence_penalty",
    "reasoning_effort",
    "repetition_penalty",
    "response_format",
    "seed",
    "top_k",
)
"""Fields that Forgeline passes on unchanged (`Parameters.extras`): OpenAI's own, and those of vLLM and SGLang."""

SUPPORTED_FEATURES: Final = frozenset({*EXTRA_FIELDS, "tools"})
"""`Provider.supported_features` of every provider that sends such bodies."""


def encode_request(model: str | None, inference: Inference, *, stream: bool) -> bytes:
    """Encode the body. None as `model` leaves the choice to the upstream; parameters that are None are left out.

    Raises InvalidRequest for text that UTF-8 can't carry.
    """
    parameters = inference.parameters
    messages = [message for turn in inference.messages for message in _encode_message(turn)]
    if inference.request.system is not None:
        messages.insert(0, {"role": "system", "content": inference.request.system})
    tools = inference.request.tools
    body = {
        **parameters.extras,
        "model": model,
        "messages": messages,
        "max_tokens": parameters.max_tokens,
        "temperature": parameters.temperature,
        "top_p": parameters.top_p,
        "stop": parameters.stop or None,
        "stream": stream,
        "stream_options": {"include_usage": True} if stream else None,
        "tools": [_encode_tool(tool) for tool in tools] or None,
        "tool_choice": _encode_tool_choice(inference.request.tool_choice) if tools else None,
    }
    try:
        # msgspec, not json: pictures in base64 would hold the event loop.
        return msgspec.json.encode({key: value for key, value in body.items() if value is not None})
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            "The text holds half of a surrogate pair, which no UTF-8 can carry.", before_call=True
        ) from error


def _encode_message(message: Message) -> Iterator[dict[str, Any]]:
    """One or several messages of OpenAI's: each tool result is one of its own, before the rest of the turn."""
    for result in message.tool_results:
        yield {"role": "tool", "tool_call_id": result.id, "content": result.text}
    parts = [part for part in message.parts if isinstance(part, str | EncodedFrame | Frame | Video)]
    if message.tool_calls:
        calls = [_encode_tool_call(call) for call in message.tool_calls]
        yield {"role": message.role, "content": message.text or None, "tool_calls": calls}
    elif parts or not message.tool_results:
        yield {"role": message.role, "content": _encode_content(message, parts)}


def _encode_content(message: Message, parts: list[str | EncodedFrame | Frame | Video]) -> str | list[dict[str, Any]]:
    if not message.media_count:
        return message.text
    content: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, str):
            content.append({"type": "text", "text": part})
        else:
            media = part.decode() if isinstance(part, EncodedFrame) else part
            # `video_url` is what vLLM and SGLang call it; OpenAI has no videos.
            kind = "video_url" if isinstance(media, Video) else "image_url"
            content.append({"type": kind, kind: {"url": f"data:{media.media_type};base64,{media.as_base64()}"}})
    return content


def _encode_tool_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _encode_tool(tool: Tool) -> dict[str, Any]:
    fields = {"name": tool.name, "description": tool.description, "parameters": tool.parameters, "strict": tool.strict}
    return {"type": "function", "function": {name: value for name, value in fields.items() if value is not None}}


def _encode_tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    return {"type": "function", "function": {"name": choice.name}} if choice.kind == "named" else choice.kind
