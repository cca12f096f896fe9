"""Parse a request of Anthropic's Messages API into an InferenceRequest.

docs/API-SHAPES.md documents which fields are supported, passed on, ignored and rejected.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from pipeline.errors import InvalidRequest
from pipeline.messages import InferenceRequest, Message, Parameters, Tool, ToolCall, ToolChoice, ToolResult
from pipeline.presets.schema import PositiveInt
from server.compat.chat import ParsedChatRequest, PictureParser, require_messages
from server.inference.parsing import Fraction, RequestContext, check_body

ToolName = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,128}$")]

# --- body types --------------------------------------------------------------------------------------


class TextBlock(Struct, tag_field="type", tag="text"):
    """`cache_control` and `citations` are ignored."""

    text: str


class Base64Source(Struct, tag_field="type", tag="base64"):
    """What kind of picture it is is told by its bytes, whatever `media_type` says."""

    data: str


class UrlSource(Struct, tag_field="type", tag="url"):
    """Refused, unless it is a data: URI."""

    url: str


class ImageBlock(Struct, tag_field="type", tag="image"):
    source: Base64Source | UrlSource


class ToolUseBlock(Struct, tag_field="type", tag="tool_use"):
    id: str
    name: ToolName
    input: dict[str, Any]


class ToolResultBlock(Struct, tag_field="type", tag="tool_result"):
    tool_use_id: str
    content: str | list[TextBlock] | None = None
    is_error: bool | None = None


class ThinkingBlock(Struct, tag_field="type", tag="thinking"):
    """What a model thought in an earlier turn is not sent to it again."""


class RedactedThinkingBlock(Struct, tag_field="type", tag="redacted_thinking"):
    """The same."""


ContentBlock = TextBlock | ImageBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock | RedactedThinkingBlock


class AnthropicMessage(Struct):
    """What the system says between the others is put together with `system`."""

    role: Literal["user", "assistant", "system"]
    content: str | list[ContentBlock]


class CustomTool(Struct):
    """`input_schema` is a JSON Schema. Anthropic's own tools, which its servers run, are refused."""

    name: ToolName
    input_schema: dict[str, Any]
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None


class AutoChoice(Struct, tag_field="type", tag="auto"):
    disable_parallel_tool_use: bool | None = None


class AnyChoice(AutoChoice, tag_field="type", tag="any"):
    pass


class NoChoice(Struct, tag_field="type", tag="none"):
    pass


class NamedChoice(Struct, tag_field="type", tag="tool"):
    name: ToolName
    disable_parallel_tool_use: bool | None = None


class Thinking(Struct):
    """Only what asks for none, or leaves it to the model."""

    type: Literal["disabled", "adaptive"]


class JsonFormat(Struct, forbid_unknown_fields=True):
    """`schema` is a JSON Schema."""

    schema: dict[str, Any]
    type: Literal["json_schema"] = "json_schema"


class OutputConfig(Struct, forbid_unknown_fields=True):
    """`effort` is ignored, `format` is passed on to upstreams of OpenAI's shape, and refused for the others."""

    effort: str | None = None
    format: JsonFormat | None = None


class MessagesRequest(Struct, forbid_unknown_fields=True):
    """A request for a message. `model` is the name of a preset."""

    model: str
    messages: Annotated[list[AnthropicMessage], Meta(min_length=1)]
    max_tokens: PositiveInt
    system: str | list[TextBlock] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Fraction | None = None
    stop_sequences: Annotated[list[str], Meta(max_length=16)] | None = None
    stream: bool | None = None
    tools: Annotated[list[CustomTool], Meta(max_length=128)] | None = None
    tool_choice: AutoChoice | AnyChoice | NoChoice | NamedChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    # Passed on to upstreams of OpenAI's shape that know it, and refused for the others.
    top_k: int | None = None
    # Ignored.
    cache_control: Any = None
    metadata: Any = None
    service_tier: Any = None


# --- conversion --------------------------------------------------------------------------------


def parse_messages(value: Any, context: RequestContext, max_pictures: int) -> ParsedChatRequest:
    """Parse a decoded body. Raises InvalidRequest."""
    body = check_body(value, MessagesRequest)
    pictures = PictureParser(max_pictures)
    messages = [
        Message(message.role, _parse_content(message, f"messages[{index}].content", pictures))
        for index, message in enumerate(body.messages)
        if message.role != "system"
    ]
    request = InferenceRequest(
        require_messages(messages),
        Parameters(
            body.max_tokens, body.temperature, body.top_p, tuple(body.stop_sequences or ()), _extra_parameters(body)
        ),
        _system_text(body),
        request_id=context.request_id,
        owner=context.owner,
        received_at=context.received_at,
        tools=tuple(Tool(tool.name, tool.description, tool.input_schema, tool.strict) for tool in body.tools or ()),
        tool_choice=_parse_tool_choice(body),
    )
    return ParsedChatRequest(request, False, (body.model,), bool(body.stream), include_usage=True)


def _extra_parameters(body: MessagesRequest) -> dict[str, Any]:
    """The fields that are passed on to the upstream, by their OpenAI names."""
    extras: dict[str, Any] = {} if body.top_k is None else {"top_k": body.top_k}
    if getattr(body.tool_choice, "disable_parallel_tool_use", False):
        extras["parallel_tool_calls"] = False
    if body.output_config is not None and body.output_config.format is not None:
        schema = {"name": "output", "schema": body.output_config.format.schema}
        extras["response_format"] = {"type": "json_schema", "json_schema": schema}
    return extras


def _system_text(body: MessagesRequest) -> str | None:
    """Join `system` and the messages of role "system": most models accept one system text only."""
    texts = [] if body.system is None else [_join_text(body.system)]
    for index, message in enumerate(body.messages):
        if message.role == "system":
            parts = _parse_content(message, f"messages[{index}].content", PictureParser(0))
            if not all(isinstance(part, str) for part in parts):
                raise InvalidRequest(f"messages[{index}].content: the system says text alone.")
            texts.append("\n".join(parts))
    return "\n\n".join(texts) if texts else None


def _parse_content(message: AnthropicMessage, name: str, pictures: PictureParser) -> tuple[Any, ...]:
    if isinstance(message.content, str):
        return (message.content,)
    parts: list[Any] = []
    for index, block in enumerate(message.content):
        match block:
            case TextBlock(text):
                parts.append(text)
            case ImageBlock(Base64Source(data)):
                parts.append(pictures.parse_base64(data, f"{name}[{index}].source.data"))
            case ImageBlock(UrlSource(url)):
                parts.append(pictures.parse_url(url, f"{name}[{index}].source.url"))
            case ToolUseBlock(id, tool_name, arguments):
                parts.append(ToolCall(id, tool_name, msgspec.json.encode(arguments).decode()))
            case ToolResultBlock(id, content, is_error):
                parts.append(ToolResult(id, "" if content is None else _join_text(content), bool(is_error)))
    return tuple(parts) or ("",)


def _join_text(content: str | list[TextBlock]) -> str:
    return content if isinstance(content, str) else "\n".join(block.text for block in content)


def _parse_tool_choice(body: MessagesRequest) -> ToolChoice:
    match body.tool_choice:
        case AnyChoice():
            if not body.tools:
                raise InvalidRequest("tool_choice: a call is required, but there are no tools.")
            return ToolChoice("required")
        case NoChoice():
            return ToolChoice("none")
        case NamedChoice(name):
            if name not in {tool.name for tool in body.tools or ()}:
                raise InvalidRequest(f"tool_choice: there is no tool {name!r}.")
            return ToolChoice("named", name)
    return ToolChoice()
