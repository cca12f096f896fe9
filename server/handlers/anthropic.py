"""Anthropic's API, for unchanged clients: /v1/messages."""

from __future__ import annotations

from typing import Any

from pipeline.errors import ForgelineError
from server.compat.anthropic.messages_parser import MessagesRequest, parse_messages
from server.compat.anthropic.messages_renderer import MessageEventEncoder, render_error, render_message
from server.compat.response_types import AnthropicAnswer, AnthropicError
from server.handlers.chat import ChatHandler
from server.inference import encoders
from server.openapi.operation import INFERENCE_ERRORS, ApiOperation


class MessagesHandler(ChatHandler):
    """POST /v1/messages."""

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("request-id", self.request_id)

    @ApiOperation(
        tag="Anthropic's shape",
        summary="Anthropic's Messages",
        description="With `stream`, the events of Anthropic's: `message_start`, `content_block_start`, "
        "`content_block_delta`, `content_block_stop`, `message_delta`, `message_stop`, `ping`, `error`.",
        body=MessagesRequest,
        answers={encoders.JSON: AnthropicAnswer, encoders.SSE: str},
        headers={"request-id": "The same, as Anthropic's clients look for it"},
        errors=INFERENCE_ERRORS,
        error_body=AnthropicError,
    )
    async def post(self) -> None:
        parsed = self.parse_body(parse_messages)
        (model,) = parsed.models
        stops = parsed.request.parameters.stop
        encoder = MessageEventEncoder(self.request_id, model, stops)
        await self.send_answer(parsed, encoder, lambda result: render_message(result, self.request_id, stops))

    def error_content(self, error: ForgelineError) -> Any:
        return render_error(error, self.request_id)
