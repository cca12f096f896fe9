"""What OpenAI's and Anthropic's APIs share: a chat becomes a stream, and its events an answer in their format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.messages import Result
from pipeline.streams import StreamRecord
from server.compat.chat import ParsedChatRequest
from server.handlers.inference import InferenceHandler
from server.inference import encoders


class ChatHandler(InferenceHandler):
    """A handler of these APIs: a field of the body, not `Accept`, decides whether the answer streams."""

    async def send_answer(
        self, parsed: ParsedChatRequest, encoder: encoders.Encoder[StreamRecord], to_body: Callable[[Result], Any]
    ) -> None:
        stream = self.services.streams.open(parsed.request, parsed.models, owner=self.owner, retain=False)
        if parsed.is_streaming:
            await self.send_events(stream, encoders.SSE, encoder)
        else:
            self.send_body(to_body(await self.wait_for_result(stream)))
