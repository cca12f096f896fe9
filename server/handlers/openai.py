"""OpenAI's API, for unchanged clients: /v1/chat/completions and /v1/models."""

from __future__ import annotations

from typing import Any, Final

from pipeline.errors import ForgelineError, UnknownModel
from server.compat.anthropic import messages_renderer
from server.compat.openai import chat_renderer
from server.compat.openai.chat_parser import ChatCompletionRequest, parse_chat_completion
from server.compat.response_types import ChatCompletion, OpenAIError, V1Model, V1ModelList
from server.handlers.base import ApiHandler
from server.handlers.chat import ChatHandler
from server.inference import encoders
from server.openapi.operation import INFERENCE_ERRORS, ApiOperation, PresetName

_TAG: Final = "OpenAI's shape"


class ChatCompletionsHandler(ChatHandler):
    """POST /v1/chat/completions."""

    @ApiOperation(
        tag=_TAG,
        summary="OpenAI's Chat Completions",
        description="With `stream`, each `data:` is a `ChatCompletionChunk`, or an `error`; the last is `[DONE]`.",
        body=ChatCompletionRequest,
        answers={encoders.JSON: ChatCompletion, encoders.SSE: str},
        errors=INFERENCE_ERRORS,
        error_body=OpenAIError,
    )
    async def post(self) -> None:
        parsed = self.parse_body(parse_chat_completion)
        (model,) = parsed.models
        encoder = chat_renderer.ChatChunkEncoder(self.request_id, model, include_usage=parsed.include_usage)
        await self.send_answer(parsed, encoder, lambda result: chat_renderer.render_completion(result, self.request_id))

    def error_content(self, error: ForgelineError) -> Any:
        return chat_renderer.render_error(error)


class V1ModelsHandler(ApiHandler):
    """GET /v1/models: the presets of models, for clients of OpenAI's and of Anthropic's API."""

    @ApiOperation(
        tag=_TAG,
        summary="The presets, for OpenAI's and Anthropic's clients",
        answers={encoders.JSON: V1ModelList},
        error_body=OpenAIError,
    )
    def get(self) -> None:
        models = self.services.runtime.models
        self.send_body(
            chat_renderer.render_model_list(sorted(models), {name: preset.provider for name, preset in models.items()})
        )

    def error_content(self, error: ForgelineError) -> Any:
        """Anthropic's clients say which version of its API they speak."""
        if "anthropic-version" in self.request.headers:
            return messages_renderer.render_error(error, self.request_id)
        return chat_renderer.render_error(error)


class V1ModelHandler(V1ModelsHandler):
    """GET /v1/models/{id}."""

    @ApiOperation(
        tag=_TAG, summary="One preset", answers={encoders.JSON: V1Model}, errors=(404,), error_body=OpenAIError
    )
    def get(self, id: PresetName) -> None:  # type: ignore[override]  # Tornado passes the path's parameters
        preset = self.services.runtime.models.get(id)
        if preset is None:
            raise UnknownModel(f"No preset defines a model {id!r}; GET /v1/models lists them.")
        self.send_body(chat_renderer.render_model(id, preset.provider))
