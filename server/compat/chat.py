"""Parsing that the OpenAI and the Anthropic format share: the parsed chat request and its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.errors import InvalidRequest
from pipeline.media.frames import EncodedFrame
from pipeline.messages import Message
from server.inference.parsing import ParsedRequest


@dataclass(frozen=True, slots=True)
class ParsedChatRequest(ParsedRequest):
    """A chat request in OpenAI's or Anthropic's format. `models` holds the one model that its body names."""

    is_streaming: bool = False
    include_usage: bool = False


class PictureParser:
    """Parses the pictures of one request and counts them. Raises InvalidRequest beyond `max_pictures`."""

    def __init__(self, max_pictures: int) -> None:
        self._max_pictures = max_pictures
        self._count = 0

    def parse_base64(self, source: str, name: str) -> EncodedFrame:
        """Parse base64 or a data: URI. `name` is the field, for errors. Raises InvalidRequest."""
        self._count += 1
        if self._count > self._max_pictures:
            raise InvalidRequest(f"{name}: this server takes at most {self._max_pictures} pictures in one request.")
        return EncodedFrame(source, name)

    def parse_url(self, url: str, name: str) -> EncodedFrame:
        """Parse a data: URI. Raises InvalidRequest, for other URLs too: the server fetches nothing."""
        if url[:5].lower() != "data:":
            raise InvalidRequest(
                f"{name}: this server fetches no pictures from elsewhere; send it as a data: URI "
                "(data:image/png;base64,...)."
            )
        return self.parse_base64(url, name)


def require_messages(messages: list[Message]) -> tuple[Message, ...]:
    """Return the messages as a tuple. Raises InvalidRequest if there are none."""
    if not messages:
        raise InvalidRequest("messages: expected at least one that is not the system's.")
    return tuple(messages)


def drop_neutral_values(fields: dict[str, Any], neutral: dict[str, Any]) -> dict[str, Any]:
    """Drop fields that are None or at their neutral value: a model that lacks the feature can answer without them."""
    return {name: value for name, value in fields.items() if value is not None and value != neutral.get(name, _MISSING)}


_MISSING = object()
