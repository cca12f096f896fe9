"""openai_compatible: any OpenAI-compatible `/chat/completions` over HTTP."""

from __future__ import annotations

import os
from functools import lru_cache

from msgspec import Struct
from yarl import URL

from pipeline.errors import Unavailable, before_upstream_call
from pipeline.messages import Inference, ModelResponse, ModelTarget
from pipeline.presets.models import ModelPreset
from pipeline.presets.schema import NoOptions
from pipeline.providers.openai.http import ChatCompletionsClient
from pipeline.providers.openai.request import SUPPORTED_FEATURES, encode_request
from pipeline.stage import Availability, Context


class OpenAICompatibleProvider:
    """One long-lived HTTP session for all models of this kind."""

    Options = NoOptions

    class ModelOptions(Struct, frozen=True):
        """`base_url`: the address before `/chat/completions`. `api_key_env`: the variable that holds the key."""

        base_url: str | None = None
        api_key_env: str | None = None

    supported_features = SUPPORTED_FEATURES
    telemetry_name = "openai"

    def __init__(self, options: NoOptions, context: Context) -> None:
        self._client = ChatCompletionsClient(context.tracing)

    async def start(self) -> None:
        """Create the session, which needs a running loop. Otherwise the first request does it."""
        self._client.session()

    async def close(self) -> None:
        """Close every connection, including those of open responses."""
        await self._client.close()

    async def availability(self, preset: ModelPreset) -> Availability:
        """Whether the preset is complete, without a network request."""
        try:
            options = preset.options_of(self.ModelOptions)
            _chat_completions_url(options.base_url)
            _api_key(options.api_key_env)
        except Unavailable as error:
            return Availability("unavailable", error.message)
        return Availability("available")

    async def open(self, target: ModelTarget, inference: Inference) -> ModelResponse:
        """Send the request, and return when the first chunk has arrived.

        Raises the errors of `openai.errors`, Unavailable if the upstream can't be reached, ModelError if its response
        can't be read.
        """
        preset = target.preset
        options = preset.options_of(self.ModelOptions)
        with before_upstream_call():
            url, key = _chat_completions_url(options.base_url), _api_key(options.api_key_env)
            body = encode_request(preset.model, inference, stream="stream" in preset.capabilities)
        response = await self._client.post(url, key, body, preset.timeouts.connect)
        return await self._client.read_response(response, key, inference.parameters.stop)


@lru_cache(maxsize=256)
def _chat_completions_url(base_url: str | None) -> URL:
    if base_url is None:
        raise Unavailable(
            "This model's preset has no base_url: the address of its server, such as http://host:8000/v1."
        )
    try:
        url = URL(base_url.rstrip("/") + "/chat/completions")
    except ValueError as error:
        raise Unavailable("The base_url in this model's preset is not an address.") from error
    if url.scheme not in {"http", "https"} or not url.host:
        raise Unavailable("The base_url in this model's preset has to begin with http:// or https:// and name a host.")
    return url


def _api_key(variable: str | None) -> str:
    """The key, or "" if the preset names no variable. Read for each request, because the environment may change."""
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise Unavailable(f"The environment variable {variable}, which should hold this model's key, is not set.")
    if not (key.isascii() and key.isprintable()):
        raise Unavailable(f"The environment variable {variable} holds no key that HTTP can carry.")
    return key
