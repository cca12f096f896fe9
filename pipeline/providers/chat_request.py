"""An inference, as the JSON body of an OpenAI-compatible `/chat/completions` request.

No provider of its own: whoever sends such a body makes it here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from pipeline.errors import InvalidRequest
from pipeline.frames import EncodedFrame, Frame, Video
from pipeline.messages import Inference, Message, Tool, ToolCall, ToolChoice

EXTRAS: Final = frozenset(
    {
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
    }
)
"""Fields of this shape that are passed on as they came: OpenAI's own, and those that vLLM and SGLang add."""

TAKES: Final = EXTRAS | {"tools"}
"""What a provider takes that sends such bodies."""


def encode_request(model: str | None, inference: Inference, *, stream: bool) -> bytes:
    """The JSON body; None as `model` leaves it to the upstream. What is None in the parameters is not sent.

    msgspec, because 4 MB of base64 take it 1 ms, where `json` takes 14. Raises InvalidRequest for text that
    no UTF-8 can carry.
    """
    parameters = inference.parameters
    messages = [turn for message in inference.messages for turn in _turns(message)]
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
        "tools": [_tool(tool) for tool in tools] or None,
        "tool_choice": _tool_choice(inference.request.tool_choice) if tools else None,
    }
    try:
        return msgspec.json.encode({key: value for key, value in body.items() if value is not None})
    except UnicodeEncodeError as error:
        raise InvalidRequest("The text holds half of a surrogate pair, which no UTF-8 can carry.") from error


def _turns(message: Message) -> Iterator[dict[str, Any]]:
    """A message as this shape has it: each result of a tool is a turn of its own, before what else was said."""
    for result in message.results:
        yield {"role": "tool", "tool_call_id": result.id, "content": result.text}
    said = [part for part in message.parts if isinstance(part, str | EncodedFrame | Frame | Video)]
    if message.calls:
        yield {"role": message.role, "content": message.text or None, "tool_calls": list(map(_call, message.calls))}
    elif said or not message.results:
        yield {"role": message.role, "content": _content(message, said)}


def _content(message: Message, said: list[str | EncodedFrame | Frame | Video]) -> str | list[dict[str, Any]]:
    if not message.shown:
        return message.text
    content: list[dict[str, Any]] = []
    for part in said:
        if isinstance(part, str):
            content.append({"type": "text", "text": part})
        else:
            shown = part.decode() if isinstance(part, EncodedFrame) else part
            kind = "video_url" if isinstance(shown, Video) else "image_url"  # for a video so vLLM and SGLang have it
            content.append({"type": kind, kind: {"url": f"data:{shown.media_type};base64,{shown.as_base64()}"}})
    return content


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _tool(tool: Tool) -> dict[str, Any]:
    said = {"name": tool.name, "description": tool.description, "parameters": tool.parameters, "strict": tool.strict}
    return {"type": "function", "function": {name: value for name, value in said.items() if value is not None}}


def _tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    return {"type": "function", "function": {"name": choice.name}} if choice.kind == "named" else choice.kind
