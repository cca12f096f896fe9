"""What the addresses in the shape of others share: a chat becomes a stream, and its events an answer of that shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.messages import Result
from pipeline.streams import Record
from server import wire
from server.handlers.inference import InferenceHandler
from server.shapes.chat import AskedChat


class ChatHandler(InferenceHandler):
    """Whether the answer streams is said in the body, as these APIs have it, whatever `Accept` says."""

    async def answer(self, asked: AskedChat, encoder: wire.Encoder[Record], whole: Callable[[Result], Any]) -> None:
        stream = self.services.streams.open(asked.request, asked.models, owner=self.owner, kept=False)
        if asked.streaming:
            await self.send_events(stream, wire.SSE, encoder)
        else:
            self.send(whole(await self.result(stream)))
