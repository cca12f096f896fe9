"""Subscriptions to the change feed: a snapshot first, then what changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import InvalidRequest
from pipeline.events.feed import FeedGap
from server.inference.encoders import Tag
from server.inference.writers import SocketWriter
from server.websocket.feed_publisher import FeedPublisher
from server.websocket.operations import Operation

TOPICS = ("jobs", "presets", "models")


class Subscription(Operation):
    """`position` is the seq of the next message to send; None: a snapshot comes first."""

    def __init__(self, publisher: FeedPublisher, topics: set[str], position: int | None) -> None:
        super().__init__()
        self.topics = topics
        self._publisher = publisher
        self._feed = publisher.feed
        self._position = position

    @classmethod
    def parse(cls, publisher: FeedPublisher, body: Mapping[str, Any]) -> Subscription:
        """Raises InvalidRequest."""
        for name in body.keys() - {"topics", "feed", "after"}:
            raise InvalidRequest(f"{name}: unknown field (known are topics, feed, after).")
        topics = parse_topics(body)
        after, feed_id = body.get("after"), body.get("feed")
        if after is None:
            return cls(publisher, topics, None)
        if isinstance(after, bool) or not isinstance(after, int) or not isinstance(feed_id, str):
            raise InvalidRequest("after: expected the seq of the last message that you have, and in `feed` its feed.")
        return cls(publisher, topics, after + 1 if feed_id == publisher.feed.id else -1)

    async def run(self, writer: SocketWriter, tag: Tag | None) -> None:
        """Send changes until this is ended. A reader that is too far behind gets a new snapshot."""
        feed = self._feed
        while True:
            if self._position is None:
                self._position = feed.next_position
                snapshot = await self._publisher.snapshot(self.topics)
                await self._send(writer, tag, [(self._position - 1, snapshot)])
            try:
                events = feed.read_from(self._position)
            except FeedGap:
                await self._send(writer, tag, [(feed.next_position - 1, {"type": "lagged"})])
                self._position = None
                continue
            first, self._position = self._position, self._position + len(events)
            messages = [(seq, event.message) for seq, event in enumerate(events, first) if event.topic in self.topics]
            await self._send(writer, tag, messages)
            await feed.wait(self._position)

    async def _send(
        self, writer: SocketWriter, tag: Tag | None, messages: Sequence[tuple[int, Mapping[str, Any]]]
    ) -> None:
        """`messages` are pairs of a seq and its message."""
        if messages:
            pack, feed_id = writer.format.pack, self._feed.id
            await writer.send([pack({"id": tag, "feed": feed_id, "seq": seq, **message}) for seq, message in messages])


def parse_topics(body: Mapping[str, Any]) -> set[str]:
    """Raises InvalidRequest."""
    topics = body.get("topics")
    if not isinstance(topics, list) or not topics or not all(topic in TOPICS for topic in topics):
        raise InvalidRequest(f"topics: expected a list of some of {', '.join(TOPICS)}.")
    return set(topics)
