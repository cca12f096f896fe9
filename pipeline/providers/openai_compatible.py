"""Any OpenAI-compatible `/chat/completions` over HTTP: inferences go out, replies come back as they stream."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from yarl import URL

from pipeline.errors import Unavailable
from pipeline.messages import Inference, Reply, Route
from pipeline.presets import ModelPreset
from pipeline.providers.chat_http import ChatHttp
from pipeline.providers.chat_request import TAKES, encode_request
from pipeline.schema import NoOptions, check
from pipeline.stage import Availability, Context


def create(options: Mapping[str, Any], context: Context) -> OpenAICompatible:
    """The provider. It takes no options: all it needs stands in the model's preset."""
    check(options, NoOptions)
    return OpenAICompatible(context)


class OpenAICompatible:
    """One long-lived HTTP session for all its models."""

    takes = TAKES

    def __init__(self, context: Context) -> None:
        self._http = ChatHttp(context.tracing)

    async def start(self) -> None:
        """Makes the session, which needs a running loop; `open` does it too, if nobody did."""
        self._http.connected()

    async def close(self) -> None:
        """Closes every connection, those of open replies as well."""
        await self._http.close()

    async def availability(self, preset: ModelPreset) -> Availability:
        """Whether the preset is complete; the network is not asked."""
        try:
            _address(preset.base_url)
            _key(preset)
        except Unavailable as error:
            return Availability("unavailable", error.message)
        return Availability("available")

    async def open(self, route: Route, inference: Inference) -> Reply:
        """Asks, and returns with the first chunk in hand. Raises what `chat_errors` makes of a refusal,
        Unavailable where the upstream can't be reached, ModelError where what it answers can't be read.
        """
        preset = route.preset
        url, key = _address(preset.base_url), _key(preset)
        body = encode_request(preset.model, inference, stream="stream" in preset.capabilities)
        response = await self._http.post(url, key, body, preset.timeouts.connect)
        return await self._http.answer(response, key, inference.parameters.stop)


@lru_cache(maxsize=256)
def _address(base_url: str | None) -> URL:
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


def _key(preset: ModelPreset) -> str:
    """The key, or "" where the preset names none. It is read anew each time: what is set may change."""
    if preset.api_key_env is None:
        return ""
    key = os.environ.get(preset.api_key_env, "").strip()
    if not key:
        raise Unavailable(
            f"The environment variable {preset.api_key_env}, which should hold this model's key, is not set."
        )
    if not (key.isascii() and key.isprintable()):
        raise Unavailable(f"The environment variable {preset.api_key_env} holds no key that HTTP can carry.")
    return key
