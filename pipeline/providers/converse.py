"""Inferences as Converse requests, and what Converse and ConverseStream answer as a reply's parts.

No provider of its own: `bedrock` sends and receives what is made and read here. One shape serves Claude and Nova alike.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Iterator, Mapping
from typing import Any, Final

from pipeline.errors import ForgelineError, ModelError
from pipeline.frames import EncodedFrame, Frame, Video
from pipeline.messages import Chunk, Inference, Message, Part, Reasoning, Stop, StopReason, Usage
from pipeline.providers.aws_errors import translating

_REASONS: Final[dict[str, StopReason]] = {
    "end_turn": "end_turn",
    "max_tokens": "max_tokens",
    "model_context_window_exceeded": "max_tokens",
    "stop_sequence": "stop_sequence",
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
        "messages": [_turn(message) for message in inference.messages],
        "inferenceConfig": {key: value for key, value in settings.items() if value is not None},
    }
    if system:
        request["system"] = [{"text": system}]
    return request


def _turn(message: Message) -> dict[str, Any]:
    """Bedrock refuses a blank text, even beside pictures; where nothing else was said it has to go all the same."""
    said = [part for part in message.parts if not isinstance(part, str) or part.strip()]
    return {"role": message.role, "content": [_block(part) for part in said or message.parts]}


def _block(part: str | EncodedFrame | Frame | Video) -> dict[str, Any]:
    """The bytes themselves: `converse_media` makes base64 of them."""
    if isinstance(part, str):
        return {"text": part}
    media = part.decode() if isinstance(part, EncodedFrame) else part
    name = "image" if isinstance(media, Frame) else "video"
    return {name: {"format": media.kind, "source": {"bytes": media.data}}}


def read_answer(answer: Mapping[str, Any]) -> Iterator[Part]:
    """The parts of what `converse` returned."""
    for block in answer["output"]["message"]["content"]:
        yield from _chunks(block.get("text"), block.get("reasoningContent", {}).get("reasoningText"))
    yield from _ending(answer.get("stopReason"), answer.get("usage"))


async def read_stream(events: AsyncIterable[Mapping[str, Any]], what: str) -> AsyncGenerator[Part, None]:
    """The parts of a ConverseStream, Stop and Usage last. `what` names the model in errors.

    Raises what `aws_errors` makes of an exception among the events, and ModelError where the stream is damaged or ends
    before the model has said why it stopped.
    """
    reason: str | None = None
    usage: Mapping[str, Any] | None = None
    try:
        with translating(what):
            async for event in events:
                if (delta := event.get("contentBlockDelta")) is not None:
                    for chunk in _chunks(delta["delta"].get("text"), delta["delta"].get("reasoningContent")):
                        yield chunk
                elif (stop := event.get("messageStop")) is not None:
                    reason = stop.get("stopReason", "")
                elif (told := event.get("metadata")) is not None:  # comes after messageStop
                    usage = told.get("usage")
    except ForgelineError:
        if reason is None:
            raise  # else the text is whole: what was lost is the usage
    if reason is None:
        raise ModelError(f"{what} failed: its answer broke off before its end.")
    for part in _ending(reason, usage):
        yield part


def _chunks(text: str | None, thought: Mapping[str, Any] | None) -> Iterable[Chunk]:
    if text:
        return (text,)
    return (Reasoning(thought["text"]),) if thought and thought.get("text") else ()


def _ending(reason: str | None, usage: Mapping[str, Any] | None) -> tuple[Stop, Usage]:
    told = usage or {}
    return Stop(_REASONS.get(reason or "", "other")), Usage(
        told.get("inputTokens"),
        told.get("outputTokens"),
        told.get("cacheReadInputTokens"),
        told.get("cacheWriteInputTokens"),
    )
