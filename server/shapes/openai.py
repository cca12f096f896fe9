"""OpenAI's Chat Completions, as they are asked for: bodies checked, and made an InferenceRequest.

docs/API-SHAPES.md tells users what is honoured, passed on, ignored and refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from pipeline.errors import InvalidRequest
from pipeline.messages import InferenceRequest, Message, Parameters, Tool, ToolCall, ToolChoice, ToolResult
from pipeline.schema import LARGEST, Positive
from server.requests import Arrival, Fraction, check_body
from server.shapes.chat import AskedChat, Pictures, at_least_one, given

Name = Annotated[str, Meta(pattern="^[a-zA-Z0-9_-]{1,64}$")]
Penalty = Annotated[float, Meta(ge=-2, le=2)]

# --- the body --------------------------------------------------------------------------------------


class TextPart(Struct, tag_field="type", tag="text"):
    text: str


class ImageUrl(Struct):
    """A data: URI; others are refused. `detail` is ignored."""

    url: str


class ImagePart(Struct, tag_field="type", tag="image_url"):
    image_url: ImageUrl | str


Text = str | list[TextPart]


class SystemMessage(Struct, tag_field="role", tag="system"):
    content: Text


class DeveloperMessage(SystemMessage, tag_field="role", tag="developer"):
    """OpenAI's newer name for the system's."""


class UserMessage(Struct, tag_field="role", tag="user"):
    content: str | list[TextPart | ImagePart]


class CalledFunction(Struct):
    """`arguments` is JSON text, as the model wrote it."""

    name: Name
    arguments: str


class FunctionCall(Struct):
    id: str
    function: CalledFunction
    type: Literal["function"] = "function"


class AssistantMessage(Struct, tag_field="role", tag="assistant"):
    content: Text | None = None
    tool_calls: list[FunctionCall] | None = None


class ToolMessage(Struct, tag_field="role", tag="tool"):
    tool_call_id: str
    content: Text


ChatMessage = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class Function(Struct):
    """`parameters` is a JSON Schema."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Struct):
    function: Function
    type: Literal["function"] = "function"


class ChosenFunction(Struct):
    name: Name


class ChosenTool(Struct):
    function: ChosenFunction
    type: Literal["function"] = "function"


class StreamOptions(Struct):
    include_usage: bool | None = None


class ChatCompletionRequest(Struct, forbid_unknown_fields=True):
    """A request for a chat completion. `model` is the name of a preset."""

    model: str
    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_completion_tokens: Positive | None = None
    max_tokens: Positive | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Fraction | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=1)] | None = None
    tools: Annotated[list[FunctionTool], Meta(max_length=128)] | None = None
    tool_choice: Literal["auto", "required", "none"] | ChosenTool | None = None
    # Only false, 0 and text: they are there because clients send them.
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=0)] | None = None
    modalities: list[Literal["text"]] | None = None
    # Passed on to upstreams of this shape, and refused for the others unless they change nothing.
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


_EXTRAS: Final = (
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
_NEUTRAL: Final[dict[str, Any]] = {
    "frequency_penalty": 0,
    "logit_bias": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0,
    "repetition_penalty": 1,
    "response_format": {"type": "text"},
}

# --- made a request --------------------------------------------------------------------------------


def parse_chat_completion(value: Any, arrival: Arrival, max_frames: int) -> AskedChat:
    """Raises InvalidRequest."""
    body = check_body(value, ChatCompletionRequest)
    if body.logprobs:
        raise InvalidRequest("logprobs: this server passes no log probabilities on; leave it out.")
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    extras = given({name: getattr(body, name) for name in _EXTRAS}, _NEUTRAL)
    # Who does not say how much gets as much as the model's preset allows.
    most = body.max_completion_tokens or body.max_tokens or LARGEST
    request = InferenceRequest(
        at_least_one(_messages(body.messages, Pictures(max_frames))),
        Parameters(most, body.temperature, body.top_p, stop, extras),
        _system(body.messages),
        request_id=arrival.request_id,
        owner=arrival.owner,
        received=arrival.received,
        tools=tuple(_tool(tool.function) for tool in body.tools or ()),
        tool_choice=_choice(body),
    )
    include_usage = bool(body.stream_options and body.stream_options.include_usage)
    return AskedChat(request, False, (body.model,), bool(body.stream), include_usage)


def _system(messages: list[ChatMessage]) -> str | None:
    """What the system and the developer say, wherever it stands: most models take it in one place only."""
    said = [_text(message.content) for message in messages if isinstance(message, SystemMessage)]
    return "\n\n".join(said) if said else None


def _messages(messages: list[ChatMessage], pictures: Pictures) -> list[Message]:
    found = []
    for index, message in enumerate(messages):
        match message:
            case UserMessage(content):
                name = f"messages[{index}].content"
                found.append(
                    Message("user", (content,) if isinstance(content, str) else _parts(content, name, pictures))
                )
            case AssistantMessage(content, calls):
                text = "" if content is None else _text(content)
                called = [ToolCall(call.id, call.function.name, call.function.arguments) for call in calls or ()]
                found.append(Message("assistant", (*([text] if text or not called else []), *called)))
            case ToolMessage(id, content):
                found.append(Message("user", (ToolResult(id, _text(content)),)))
    return found


def _parts(content: list[TextPart | ImagePart], name: str, pictures: Pictures) -> tuple[Any, ...]:
    return tuple(
        part.text
        if isinstance(part, TextPart)
        else pictures.take_url(
            part.image_url if isinstance(part.image_url, str) else part.image_url.url, f"{name}[{index}].image_url"
        )
        for index, part in enumerate(content)
    )


def _text(content: Text) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content)


def _tool(function: Function) -> Tool:
    parameters = function.parameters or {"type": "object", "properties": {}}
    return Tool(function.name, function.description, parameters, function.strict)


def _choice(body: ChatCompletionRequest) -> ToolChoice:
    choice = body.tool_choice or "auto"
    if isinstance(choice, str):
        if choice == "required" and not body.tools:
            raise InvalidRequest("tool_choice: a call is required, but there are no tools.")
        return ToolChoice(choice)
    if choice.function.name not in {tool.function.name for tool in body.tools or ()}:
        raise InvalidRequest(f"tool_choice: there is no tool {choice.function.name!r}.")
    return ToolChoice("named", choice.function.name)
