"""The change feed: a ring of the latest events, which no reader can hold up."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.events.cursor import wake_all


class FeedGap(Exception):
    """The requested events have left the ring, or belong to another server process: a new snapshot is required."""


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """One message of the feed and the topic that it belongs to."""

    topic: str
    message: Mapping[str, Any]


class Feed:
    """The last `capacity` events. `id` identifies the server process that a position belongs to."""

    def __init__(self, capacity: int = 1000) -> None:
        self.id = secrets.token_hex(8)
        self.next_position = 0
        self._ring: deque[FeedEvent] = deque(maxlen=capacity)
        self._waiting_readers: set[asyncio.Future[None]] = set()

    def append(self, topic: str, message: Mapping[str, Any]) -> None:
        self._ring.append(FeedEvent(topic, message))
        self.next_position += 1
        wake_all(self._waiting_readers)

    def read_from(self, position: int) -> Sequence[FeedEvent]:
        """Return the events from `position` on. Raises FeedGap where some of them are gone or never existed."""
        behind = self.next_position - position
        if not 0 <= behind <= len(self._ring):
            raise FeedGap
        return [self._ring[index] for index in range(len(self._ring) - behind, len(self._ring))]

    async def wait(self, position: int) -> None:
        """Return once there is an event at `position`."""
        while self.next_position <= position:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting_readers.add(future)
            try:
                await future
            finally:
                self._waiting_readers.discard(future)  # a cancelled one is still in the set
