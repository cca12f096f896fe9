"""A chat completion goes to EMD's OpenAI router, with the key that its secret holds for the model.

No provider of its own. The router serves what EMD put on ECS, and wants a key only for models that have one.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

import msgspec
from yarl import URL

from pipeline.errors import ForgelineError, Unavailable
from pipeline.messages import Reply
from pipeline.providers.aws import Clients, harmless, translate
from pipeline.providers.chat_http import ChatHttp
from pipeline.providers.emd_sagemaker import Gone

if TYPE_CHECKING:
    from pipeline.otel import Tracing

SECRET: Final = "EMD-APIKey-Secrets"  # noqa: S105 - its name


class Router:
    """One session for all models; the keys of each region, read once and again after a 401."""

    def __init__(self, clients: Clients, tracing: Tracing | None = None) -> None:
        self._clients = clients
        self._http = ChatHttp(tracing)
        self._keys: dict[str | None, dict[str, str]] = {}

    async def close(self) -> None:
        await self._http.close()

    async def ask(  # noqa: PLR0913 - each is a part of the call
        self, base_url: str, name: str, region: str | None, *, body: bytes, connect: float, stops: Collection[str]
    ) -> Reply:
        """Asks the model `<model id>/<tag>`, and returns with the first chunk in hand.

        Raises Gone where the router knows no such model, otherwise what `chat_errors` makes of a failure.
        """
        url = URL(base_url.rstrip("/") + "/v1/chat/completions")
        key = await self._key(name, region)
        response = await self._http.post(url, key, body, connect)
        if response.status == 401:
            response.close()
            before, key = key, await self._key(name, region, anew=True)
            if key == before:
                raise Unavailable(f"EMD's router refused the key that {SECRET} holds for {name}.")
            response = await self._http.post(url, key, body, connect)
        if response.status == 404:
            response.close()
            raise Gone
        return await self._http.answer(response, key, stops)

    async def _key(self, name: str, region: str | None, *, anew: bool = False) -> str:
        """The model's key, "" where it has none. Raises Unavailable where a 401 makes it needed and it can't be had."""
        if anew or region not in self._keys:
            try:
                self._keys[region] = await self._read(region)
            except ForgelineError as error:
                if anew:
                    raise Unavailable(f"EMD's router wants a key for {name}, and {error.message}") from error
                return ""  # it may need none
        return self._keys[region].get(name, "")

    async def _read(self, region: str | None) -> dict[str, str]:
        what = f"the secret {SECRET}"
        client = await self._clients.get("secretsmanager", region)
        try:
            text: str = (await client.get_secret_value(SecretId=SECRET))["SecretString"]
            return msgspec.json.decode(text, type=dict[str, str])
        except client.exceptions.ResourceNotFoundException:
            return {}
        except (msgspec.DecodeError, KeyError):
            # Without its cause, which may show what is in it.
            raise Unavailable(f"{what} holds no JSON map of models to keys.") from None
        except Exception as error:  # whatever the SDK makes of what it can't read
            failed: Any = translate(error, what)
            raise failed from harmless(error)
