"""Any OpenAI-compatible `/chat/completions` over HTTP: inferences go out, replies come back as they stream."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from pipeline.errors import ForgelineError, ModelError, Unavailable
from pipeline.messages import Inference, Reply, Route
from pipeline.presets import ModelPreset
from pipeline.providers.chat_answer import AnswerReader, begin_answer
from pipeline.providers.chat_errors import error_for_status, message_in_body, read_retry_after
from pipeline.providers.chat_request import encode_request
from pipeline.schema import NoOptions, check
from pipeline.stage import Availability, Context

MAX_ERROR_BODY: Final = 64 * 1024  # bytes that are read of an error's body
ERROR_BODY_TIME: Final = 2.0  # seconds that its arrival may take
LINGER: Final = 1.0  # seconds that a connection has to end its answer after [DONE], to be used again
IDLE: Final = 4.0  # seconds; uvicorn, which vLLM and SGLang run on, closes an idle connection after 5
SLICE: Final = 256 * 1024  # bytes of a large body that are written at once

_BROKEN: Final = (aiohttp.ClientError, HttpProcessingError, OSError, RuntimeError)
"""All that aiohttp raises for a connection; RuntimeError where it was closed before the read."""


def create(options: Mapping[str, Any], context: Context) -> OpenAICompatible:
    """The provider. It takes no options: all it needs stands in the model's preset."""
    check(options, NoOptions)
    return OpenAICompatible()


class OpenAICompatible:
    """One long-lived HTTP session for all its models."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._lingering: set[aiohttp.ClientResponse] = set()

    async def start(self) -> None:
        """Makes the session, which needs a running loop; `open` does it too, if nobody did."""
        self._connected()

    async def close(self) -> None:
        """Closes every connection, those of open replies as well."""
        for response in [*self._lingering]:
            self._end(response)
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def availability(self, preset: ModelPreset) -> Availability:
        """Whether the preset is complete; the network is not asked."""
        try:
            _address(preset)
            _key(preset)
        except Unavailable as error:
            return Availability("unavailable", error.message)
        return Availability("available")

    async def open(self, route: Route, inference: Inference) -> Reply:
        """Asks, and returns with the first chunk in hand. Raises what `chat_errors` makes of a refusal,
        Unavailable where the upstream can't be reached, ModelError where what it answers can't be read.
        """
        preset = route.preset
        url, key = _address(preset), _key(preset)
        body = encode_request(preset.model, inference, stream="stream" in preset.capabilities)
        response = await self._post(url, key, body, preset.timeouts.connect)
        try:
            if response.status != 200:
                raise await _refusal(response, key)
            is_json = response.content_type == "application/json"
            reader = AnswerReader(stops=inference.parameters.stop, whole_json=is_json, secret=key)
            parts = await begin_answer(_Blocks(response), reader)
        except BaseException:
            response.close()
            raise
        return Reply(
            parts, lambda: self._let_go(response, reader), id=reader.id, model=reader.model, streamed=reader.streamed
        )

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(),
            )
        return self._session

    async def _post(self, url: URL, key: str, body: bytes, connect: float) -> aiohttp.ClientResponse:
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        # `connect` also bounds the look-up of the name, which `sock_connect` does not; no pool is ever waited for.
        timeout = aiohttp.ClientTimeout(connect=connect, sock_connect=connect)
        data = body if len(body) <= SLICE else _slices(body)
        try:
            return await self._connected().post(url, data=data, headers=headers, timeout=timeout, allow_redirects=False)
        except (*_BROKEN, ValueError) as error:
            raise _unanswered(error, f"{url.host}:{url.port}", connect) from _without_headers(error)

    def _let_go(self, response: aiohttp.ClientResponse, reader: AnswerReader) -> None:
        """Closes the connection, unless the answer is whole; aiohttp takes back one that was read to its end.

        After [DONE] that end is usually a packet away: the wait for it is left to the loop.
        """
        if reader.done and not response.closed:
            self._lingering.add(response)
            asyncio.get_running_loop().call_later(LINGER, self._end, response)
        else:
            response.close()

    def _end(self, response: aiohttp.ClientResponse) -> None:
        self._lingering.discard(response)
        response.close()


class _Blocks:
    """Gives a response's bytes as they come, its errors translated."""

    __slots__ = ("_read",)

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._read = response.content.readany

    async def __call__(self) -> bytes:
        try:
            return await self._read()
        except _BROKEN as error:
            raise ModelError("The model's answer broke off: the connection was lost.") from error


def _address(preset: ModelPreset) -> URL:
    if preset.base_url is None:
        raise Unavailable(
            "This model's preset has no base_url: the address of its server, such as http://host:8000/v1."
        )
    try:
        url = URL(preset.base_url.rstrip("/") + "/chat/completions")
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


async def _slices(body: bytes) -> AsyncGenerator[memoryview, None]:
    view = memoryview(body)
    for at in range(0, len(body), SLICE):
        yield view[at : at + SLICE]


async def _refusal(response: aiohttp.ClientResponse, key: str) -> ForgelineError:
    body = bytearray()
    try:
        async with asyncio.timeout(ERROR_BODY_TIME):
            while len(body) < MAX_ERROR_BODY and (block := await response.content.readany()):
                body += block
    except (*_BROKEN, TimeoutError):
        pass  # the status says enough
    retry_after = read_retry_after(response.headers.get("Retry-After"))
    return error_for_status(response.status, message_in_body(bytes(body[:MAX_ERROR_BODY]), key), retry_after)


def _unanswered(error: Exception, where: str, connect: float) -> ForgelineError:
    """What it means that no answer came. `where` is host:port."""
    match error:
        case TimeoutError():
            why = f"no connection within {connect:g} s"
        case aiohttp.ClientSSLError():
            why = "no TLS connection could be made"
        case aiohttp.ClientConnectorDNSError():
            why = "its name can't be resolved"
        case aiohttp.ClientConnectorError():
            why = os.strerror(error.errno) if error.errno else "no connection could be made"
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return ModelError(f"What {where} answered is not HTTP.")
        case ValueError():
            why = "the base_url in this model's preset can't be used"
        case _:
            why = "it closed the connection without an answer"
    return Unavailable(f"Cannot reach {where}: {why}.")


def _without_headers(error: Exception) -> BaseException | None:
    """The error as a cause that may be logged: a ClientResponseError's repr shows the request's headers."""
    return error.__cause__ if isinstance(error, aiohttp.ClientResponseError) else error
