"""Anthropic's address: /v1/messages, for its clients as they are."""

from __future__ import annotations

from typing import Any

from pipeline.errors import ForgelineError
from server.handlers.chat import ChatHandler
from server.shapes.anthropic import parse_messages
from server.shapes.anthropic_answers import EventEncoder, error_content, message


class MessagesHandler(ChatHandler):
    """POST /v1/messages."""

    address = "/v1/messages"

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("request-id", self.request_id)

    async def post(self) -> None:
        asked = self.read(parse_messages)
        (model,) = asked.models
        stops = asked.request.parameters.stop
        encoder = EventEncoder(self.request_id, model, stops)
        await self.answer(asked, encoder, lambda result: message(result, self.request_id, stops))

    def error_content(self, error: ForgelineError) -> Any:
        return error_content(error, self.request_id)
