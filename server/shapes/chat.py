"""What the shapes of others share: a chat as it was asked for, and the pictures in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.errors import InvalidRequest
from pipeline.frames import EncodedFrame
from pipeline.messages import Message
from server.requests import Asked


@dataclass(frozen=True, slots=True)
class AskedChat(Asked):
    """A request in the shape of others, and how it wants its answer. `models` holds the one that it names."""

    streaming: bool = False
    include_usage: bool = False


class Pictures:
    """Takes the pictures of one request, wherever in it they stand, and at most so many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0

    def take(self, source: str, name: str) -> EncodedFrame:
        """`source` is base64 or a data: URI. Raises InvalidRequest."""
        self._taken += 1
        if self._taken > self._most:
            raise InvalidRequest(f"{name}: this server takes at most {self._most} pictures in one request.")
        return EncodedFrame(source, name)

    def take_url(self, url: str, name: str) -> EncodedFrame:
        if url[:5].lower() != "data:":
            raise InvalidRequest(
                f"{name}: this server fetches no pictures from elsewhere; send it as a data: URI "
                "(data:image/png;base64,...)."
            )
        return self.take(url, name)


def at_least_one(messages: list[Message]) -> tuple[Message, ...]:
    """The messages, of which at least one has to be there. Raises InvalidRequest."""
    if not messages:
        raise InvalidRequest("messages: expected at least one that is not the system's.")
    return tuple(messages)


def given(extras: dict[str, Any], neutral: dict[str, Any]) -> dict[str, Any]:
    """Those that say something: a value that changes nothing has not to be taken by anybody."""
    return {name: value for name, value in extras.items() if value is not None and value != neutral.get(name, _NOTHING)}


_NOTHING = object()
