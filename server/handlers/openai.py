"""OpenAI's addresses: /v1/chat/completions and /v1/models, for its clients as they are."""

from __future__ import annotations

from typing import Any

from pipeline.errors import ForgelineError, UnknownModel
from server.handlers.base import ApiHandler
from server.handlers.chat import ChatHandler
from server.shapes import anthropic_answers, openai_answers
from server.shapes.openai import parse_chat_completion


class ChatCompletionsHandler(ChatHandler):
    """POST /v1/chat/completions."""

    address = "/v1/chat/completions"

    async def post(self) -> None:
        asked = self.read(parse_chat_completion)
        (model,) = asked.models
        encoder = openai_answers.ChunkEncoder(self.request_id, model, include_usage=asked.include_usage)
        await self.answer(asked, encoder, lambda result: openai_answers.completion(result, self.request_id))

    def error_content(self, error: ForgelineError) -> Any:
        return openai_answers.error_content(error)


class V1ModelsHandler(ApiHandler):
    """GET /v1/models: the presets of models, for the clients of both shapes."""

    address = "/v1/models"

    def get(self) -> None:
        models = self.services.runtime.models
        self.send(openai_answers.list_models(sorted(models), {name: one.provider for name, one in models.items()}))

    def error_content(self, error: ForgelineError) -> Any:
        """Anthropic's clients say which version of its API they speak."""
        if "anthropic-version" in self.request.headers:
            return anthropic_answers.error_content(error, self.request_id)
        return openai_answers.error_content(error)


class V1ModelHandler(V1ModelsHandler):
    """GET /v1/models/{id}."""

    address = "/v1/models/{id}"

    def get(self, name: str) -> None:  # type: ignore[override]  # tornado passes what the address holds
        preset = self.services.runtime.models.get(name)
        if preset is None:
            raise UnknownModel(f"No preset defines a model {name!r}; GET /v1/models lists them.")
        self.send(openai_answers.describe_model(name, preset.provider))
