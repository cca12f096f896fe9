"""A subscription to the change feed: a snapshot first, then what changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import InvalidRequest
from pipeline.eventlog import Lagged
from server.services import Services
from server.sinks import SocketWriter
from server.wire import Tag

Message = Mapping[str, Any]

TOPICS = ("jobs", "presets", "models")


@dataclass(eq=False)
class Subscription:
    """`position` is the seq of the first message that is wanted; None: a snapshot first."""

    services: Services
    topics: set[str]
    position: int | None

    @classmethod
    def parse(cls, services: Services, body: dict[str, Any]) -> Subscription:
        """Raises InvalidRequest."""
        for name in body.keys() - {"topics", "feed", "after"}:
            raise InvalidRequest(f"{name}: unknown field (known are topics, feed, after).")
        topics = cls.parse_topics(body)
        after, feed = body.get("after"), body.get("feed")
        if after is None:
            return cls(services, topics, None)
        if isinstance(after, bool) or not isinstance(after, int) or not isinstance(feed, str):
            raise InvalidRequest("after: expected the seq of the last message that you have, and in `feed` its feed.")
        return cls(services, topics, after + 1 if feed == services.feed.id else -1)

    @staticmethod
    def parse_topics(body: dict[str, Any]) -> set[str]:
        topics = body.get("topics")
        if not isinstance(topics, list) or not topics or not all(topic in TOPICS for topic in topics):
            raise InvalidRequest(f"topics: expected a list of some of {', '.join(TOPICS)}.")
        return set(topics)

    async def follow(self, writer: SocketWriter, tag: Tag | None, talk: object) -> None:
        """Tells what changes, for as long as it is asked to. A reader that lags gets a new snapshot."""
        feed = self.services.feed
        while True:
            if self.position is None:
                self.position = feed.next
                snapshot = await self.services.snapshot(self.topics)
                await self._send(writer, tag, [(self.position - 1, snapshot)])
            try:
                news = feed.after(self.position)
            except Lagged:
                await self._send(writer, tag, [(feed.next - 1, {"type": "lagged"})])
                self.position = None
                continue
            first, self.position = self.position, self.position + len(news)
            wanted = [(seq, item.message) for seq, item in enumerate(news, first) if item.topic in self.topics]
            await self._send(writer, tag, wanted)
            await feed.wait(self.position)

    async def _send(self, writer: SocketWriter, tag: Tag | None, messages: Sequence[tuple[int, Message]]) -> None:
        if messages:
            pack, feed = writer.format.pack, self.services.feed.id
            await writer.send([pack({"id": tag, "feed": feed, "seq": seq, **message}) for seq, message in messages])
