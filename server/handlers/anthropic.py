"""Anthropic's API, for unchanged clients: /v1/messages."""

from __future__ import annotations

from typing import Any

from pipeline.errors import ForgelineError
from server.compat.anthropic.messages_parser import parse_messages
from server.compat.anthropic.messages_renderer import MessageEventEncoder, render_error, render_message
from server.handlers.chat import ChatHandler


class MessagesHandler(ChatHandler):
    """POST /v1/messages."""

    route_template = "/v1/messages"

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("request-id", self.request_id)

    async def post(self) -> None:
        parsed = self.parse_body(parse_messages)
        (model,) = parsed.models
        stops = parsed.request.parameters.stop
        encoder = MessageEventEncoder(self.request_id, model, stops)
        await self.send_answer(parsed, encoder, lambda result: render_message(result, self.request_id, stops))

    def error_content(self, error: ForgelineError) -> Any:
        return render_error(error, self.request_id)
