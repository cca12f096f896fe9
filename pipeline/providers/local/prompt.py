"""The prompt of the embedded model: the conversation, with the text that was read from its pictures."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from pipeline.media.sampling import strip_note
from pipeline.messages import Inference


def build_chat(inference: Inference, texts: list[list[list[str]]]) -> dict[str, Any]:
    """Build the body of a chat completion. `texts[message][picture]` are the lines that were read from that picture.

    With pictures there is no system prompt: this model rambles with one.
    """
    is_video = inference.request.media_type == "video"
    messages = [
        {
            "role": message.role,
            "content": _encodable((_video_content if is_video else _content)(message.text, pictures)),
        }
        for message, pictures in zip(inference.messages, texts, strict=True)
    ]
    if inference.request.system and not any(texts):
        messages.insert(0, {"role": "system", "content": _encodable(inference.request.system)})
    parameters = inference.parameters
    chat = {"messages": messages, "max_tokens": parameters.max_tokens, "stop": list(map(_encodable, parameters.stop))}
    sampling = {"temperature": parameters.temperature, "top_p": parameters.top_p}
    return chat | {name: value for name, value in sampling.items() if value is not None}


def _content(text: str, pictures: list[list[str]]) -> str:
    """The text of a message, after the text that was read from its pictures."""
    if not pictures:
        return text
    names = ["an image"] if len(pictures) == 1 else [f"image {number}" for number in range(1, len(pictures) + 1)]
    content: list[str] = []
    for name, lines in zip(names, pictures, strict=True):
        content += [f"Text read from {name}:", *lines]
    return "\n".join([*content, f"Question: {text or 'What does it say?'}"])


def _video_content(text: str, frames: list[list[str]]) -> str:
    """As `_content`, with consecutive frames of the same text as one picture.

    The note about the frames is removed: this model takes it for the question.
    """
    return _content(strip_note(text), [lines for lines, _ in groupby(filter(None, frames))])


def _encodable(text: str) -> str:
    """JSON can carry half of a surrogate pair, UTF-8 can't."""
    return text.encode(errors="replace").decode()
