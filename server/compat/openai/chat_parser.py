"""Parse a request of OpenAI's Chat Completions API into an InferenceRequest.

docs/API-SHAPES.md documents which fields are supported, passed on, ignored and rejected.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from pipeline.errors import InvalidRequest
from pipeline.messages import InferenceRequest, Message, Parameters, Tool, ToolCall, ToolChoice, ToolResult
from pipeline.presets.schema import PositiveInt
from pipeline.providers.openai.request import EXTRA_FIELDS
from server.compat.chat import ParsedChatRequest, PictureParser, drop_neutral_values, require_messages
from server.inference.parsing import Fraction, RequestContext, check_body

FunctionName = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
Penalty = Annotated[float, Meta(ge=-2, le=2)]

# --- body types --------------------------------------------------------------------------------------


class TextPart(Struct, tag_field="type", tag="text"):
    text: str


class ImageUrl(Struct):
    """A data: URI; others are refused. `detail` is ignored."""

    url: str


class ImagePart(Struct, tag_field="type", tag="image_url"):
    image_url: ImageUrl | str


TextOrParts = str | list[TextPart]


class SystemMessage(Struct, tag_field="role", tag="system"):
    content: TextOrParts


class DeveloperMessage(SystemMessage, tag_field="role", tag="developer"):
    """OpenAI's newer name for the system's."""


class UserMessage(Struct, tag_field="role", tag="user"):
    content: str | list[TextPart | ImagePart]


class CalledFunction(Struct):
    """`arguments` is JSON text, as the model wrote it."""

    name: FunctionName
    arguments: str


class FunctionCall(Struct):
    id: str
    function: CalledFunction
    type: Literal["function"] = "function"


class AssistantMessage(Struct, tag_field="role", tag="assistant"):
    content: TextOrParts | None = None
    tool_calls: list[FunctionCall] | None = None


class ToolMessage(Struct, tag_field="role", tag="tool"):
    tool_call_id: str
    content: TextOrParts


ChatMessage = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class Function(Struct):
    """`parameters` is a JSON Schema."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Struct):
    function: Function
    type: Literal["function"] = "function"


class ChosenFunction(Struct):
    name: FunctionName


class ChosenTool(Struct):
    function: ChosenFunction
    type: Literal["function"] = "function"


class StreamOptions(Struct):
    include_usage: bool | None = None


class ChatCompletionRequest(Struct, forbid_unknown_fields=True):
    """A request for a chat completion. `model` is the name of a preset."""

    model: str
    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_completion_tokens: PositiveInt | None = None
    max_tokens: PositiveInt | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Fraction | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=1)] | None = None
    tools: Annotated[list[FunctionTool], Meta(max_length=128)] | None = None
    tool_choice: Literal["auto", "required", "none"] | ChosenTool | None = None
    # Accepted with these values only, because clients send them.
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=0)] | None = None
    modalities: list[Literal["text"]] | None = None
    # EXTRA_FIELDS: passed on to OpenAI-compatible upstreams; for others rejected, unless at a neutral value.
    chat_template_kwargs: dict[str, Any] | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, float] | None = None
    min_p: Fraction | None = None
    parallel_tool_calls: bool | None = None
    presence_penalty: Penalty | None = None
    reasoning_effort: str | None = None
    repetition_penalty: float | None = None
    response_format: dict[str, Any] | None = None
    seed: int | None = None
    top_k: int | None = None
    # Ignored.
    metadata: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    store: Any = None
    user: Any = None


_NEUTRAL_VALUES: Final[dict[str, Any]] = {
    "frequency_penalty": 0,
    "logit_bias": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0,
    "repetition_penalty": 1,
    "response_format": {"type": "text"},
}
"""Values that change nothing, by field."""

# --- conversion --------------------------------------------------------------------------------


def parse_chat_completion(value: Any, context: RequestContext, max_pictures: int) -> ParsedChatRequest:
    """Parse a decoded body. Raises InvalidRequest."""
    body = check_body(value, ChatCompletionRequest)
    if body.logprobs:
        raise InvalidRequest("logprobs: this server passes no log probabilities on; leave it out.")
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    extras = drop_neutral_values({name: getattr(body, name) for name in EXTRA_FIELDS}, _NEUTRAL_VALUES)
    max_tokens = body.max_completion_tokens or body.max_tokens
    request = InferenceRequest(
        require_messages(_convert_messages(body.messages, PictureParser(max_pictures))),
        Parameters(max_tokens, body.temperature, body.top_p, stop, extras),
        _system_text(body.messages),
        request_id=context.request_id,
        owner=context.owner,
        received_at=context.received_at,
        tools=tuple(_convert_tool(tool.function) for tool in body.tools or ()),
        tool_choice=_convert_tool_choice(body),
    )
    include_usage = bool(body.stream_options and body.stream_options.include_usage)
    return ParsedChatRequest(request, False, (body.model,), bool(body.stream), include_usage)


def _system_text(messages: list[ChatMessage]) -> str | None:
    """Join the system and developer messages: most models accept one system text only."""
    texts = [_join_text(message.content) for message in messages if isinstance(message, SystemMessage)]
    return "\n\n".join(texts) if texts else None


def _convert_messages(messages: list[ChatMessage], pictures: PictureParser) -> list[Message]:
    converted = []
    for index, message in enumerate(messages):
        match message:
            case UserMessage(content):
                name = f"messages[{index}].content"
                converted.append(
                    Message(
                        "user", (content,) if isinstance(content, str) else _convert_content(content, name, pictures)
                    )
                )
            case AssistantMessage(content, calls):
                text = "" if content is None else _join_text(content)
                tool_calls = [ToolCall(call.id, call.function.name, call.function.arguments) for call in calls or ()]
                converted.append(Message("assistant", (*([text] if text or not tool_calls else []), *tool_calls)))
            case ToolMessage(id, content):
                converted.append(Message("user", (ToolResult(id, _join_text(content)),)))
    return converted


def _convert_content(content: list[TextPart | ImagePart], name: str, pictures: PictureParser) -> tuple[Any, ...]:
    return tuple(
        part.text
        if isinstance(part, TextPart)
        else pictures.parse_url(
            part.image_url if isinstance(part.image_url, str) else part.image_url.url, f"{name}[{index}].image_url"
        )
        for index, part in enumerate(content)
    )


def _join_text(content: TextOrParts) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content)


def _convert_tool(function: Function) -> Tool:
    parameters = function.parameters or {"type": "object", "properties": {}}
    return Tool(function.name, function.description, parameters, function.strict)


def _convert_tool_choice(body: ChatCompletionRequest) -> ToolChoice:
    choice = body.tool_choice or "auto"
    if isinstance(choice, str):
        if choice == "required" and not body.tools:
            raise InvalidRequest("tool_choice: a call is required, but there are no tools.")
        return ToolChoice(choice)
    if choice.function.name not in {tool.function.name for tool in body.tools or ()}:
        raise InvalidRequest(f"tool_choice: there is no tool {choice.function.name!r}.")
    return ToolChoice("named", choice.function.name)
