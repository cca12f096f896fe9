"""Types of the responses in OpenAI's and Anthropic's formats (see server/inference/response_types.py)."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

# --- OpenAI's --------------------------------------------------------------------------------------


class CalledFunctionAnswer(Struct):
    """`arguments` is JSON text, as the model wrote it."""

    name: str
    arguments: str


class ToolCallAnswer(Struct):
    id: str
    type: Literal["function"]
    function: CalledFunctionAnswer


class AssistantAnswer(Struct):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[ToolCallAnswer] | UnsetType = UNSET


class CompletionChoice(Struct):
    index: int
    message: AssistantAnswer
    logprobs: None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]


class CompletionUsage(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: dict[str, int] | UnsetType = UNSET


class ChatCompletion(Struct):
    """`usage` is left out where the provider counts no tokens."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: CompletionUsage | UnsetType = UNSET


class ChunkChoice(Struct):
    index: int
    delta: dict[str, Any]
    logprobs: None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"] | None


class ChatCompletionChunk(Struct):
    """One `data:` of the stream. The one with `usage`, where it was asked for, has no choices."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | UnsetType | None = UNSET


class OpenAIErrorPart(Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(Struct):
    """An error in OpenAI's form."""

    error: OpenAIErrorPart


class V1Model(Struct):
    """A preset, with the fields that the clients of both shapes look for."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    type: Literal["model"]
    display_name: str
    created_at: str


class V1ModelList(Struct):
    object: Literal["list"]
    data: list[V1Model]
    has_more: bool
    first_id: str | None
    last_id: str | None


# --- Anthropic's -----------------------------------------------------------------------------------


class TextBlockAnswer(Struct, tag_field="type", tag="text"):
    text: str
    citations: None


class ToolUseBlockAnswer(Struct, tag_field="type", tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any]


class AnthropicUsage(Struct):
    """0 where the provider tells no number."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int


class AnthropicAnswer(Struct):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextBlockAnswer | ToolUseBlockAnswer]
    stop_reason: Literal["end_turn", "stop_sequence", "max_tokens", "tool_use", "refusal"]
    stop_sequence: str | None
    usage: AnthropicUsage


class AnthropicErrorPart(Struct):
    type: str
    message: str


class AnthropicError(Struct):
    """An error in Anthropic's form."""

    type: Literal["error"]
    error: AnthropicErrorPart
    request_id: str
