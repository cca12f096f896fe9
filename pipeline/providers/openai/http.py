"""HTTP client of an OpenAI-compatible `/chat/completions`, shared by the providers that call one over HTTP."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Collection
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from pipeline import fast
from pipeline.errors import ForgelineError, ModelError, Unavailable, parse_retry_after
from pipeline.messages import ModelResponse
from pipeline.providers.openai.errors import error_from_status, read_error_message
from pipeline.providers.openai.response import ChatResponseParser, read_chat_response

if TYPE_CHECKING:
    from pipeline.telemetry.otel import Tracing

MAX_ERROR_BODY_BYTES: Final = 64 * 1024  # read of the body of an error response
ERROR_BODY_SECONDS: Final = 2.0  # how long that body may take to arrive
LINGER_SECONDS: Final = 1.0  # how long the end of a response may take after [DONE], so that its connection is reused
KEEPALIVE_SECONDS: Final = 4.0  # uvicorn, which vLLM and SGLang run on, closes an idle connection after 5
WRITE_BYTES: Final = 256 * 1024  # of a large body that are written at once

_CONNECTION_ERRORS: Final = (aiohttp.ClientError, HttpProcessingError, OSError, RuntimeError)
"""All that aiohttp raises for a connection; RuntimeError if it was closed before the read."""


class ChatCompletionsClient:
    """One long-lived HTTP session for all models of a provider."""

    def __init__(self, tracing: Tracing | None = None) -> None:
        self._tracing = tracing
        self._session: aiohttp.ClientSession | None = None
        self._lingering: set[aiohttp.ClientResponse] = set()

    async def close(self) -> None:
        """Close every connection, including those of open responses."""
        for response in [*self._lingering]:
            self._close_lingering(response)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def session(self) -> aiohttp.ClientSession:
        """The session, created at the first call, which needs a running loop."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(),
                trace_configs=None if self._tracing is None else [_trace_config(self._tracing)],
            )
        return self._session

    async def post(self, url: URL, key: str, body: bytes, connect_seconds: float) -> aiohttp.ClientResponse:
        """Send the request; `key` may be "". The caller passes the response to `read_response`, or closes it.

        Raises Unavailable if the upstream can't be reached, ModelError if it does not speak HTTP.
        """
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        data = body if len(body) <= WRITE_BYTES else _split(body)
        try:
            return await self.session().post(
                url, data=data, headers=headers, timeout=_connect_timeout(connect_seconds), allow_redirects=False
            )
        except (*_CONNECTION_ERRORS, ValueError) as error:
            raise _connection_error(error, f"{url.host}:{url.port}", connect_seconds) from _safe_cause(error)

    async def read_response(
        self, response: aiohttp.ClientResponse, key: str, stop_sequences: Collection[str]
    ) -> ModelResponse:
        """Return the response when its first chunk has arrived.

        Raises the errors of `openai.errors` for an error status, ModelError if the body can't be read.
        """
        try:
            if response.status != 200:
                raise await _read_error(response, key)
            parser = ChatResponseParser(
                stop_sequences=stop_sequences, may_be_json=response.content_type == "application/json", secret=key
            )
            batches = await read_chat_response(_BodyReader(response), parser)
        except BaseException:
            response.close()
            raise
        return ModelResponse(
            batches,
            lambda: self._release(response, parser),
            id=parser.id,
            model=parser.model,
            streamed=parser.streamed,
        )

    def _release(self, response: aiohttp.ClientResponse, parser: ChatResponseParser) -> None:
        """Close the connection, or leave it to aiohttp for reuse if the whole response has been parsed.

        aiohttp reuses a connection that was read to its end. After [DONE] that end is usually one packet away; a timer
        waits for it, not the caller.
        """
        if parser.done and not response.closed:
            self._lingering.add(response)
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self._close_lingering, response)
        else:
            response.close()

    def _close_lingering(self, response: aiohttp.ClientResponse) -> None:
        self._lingering.discard(response)
        response.close()


@lru_cache(maxsize=256)
def _connect_timeout(seconds: float) -> aiohttp.ClientTimeout:
    """`connect` also bounds the DNS lookup, which `sock_connect` does not; the pool has no limit to wait for."""
    return aiohttp.ClientTimeout(connect=seconds, sock_connect=seconds)


class _BodyReader:
    """Returns a response's bytes as they arrive, and translates its errors."""

    __slots__ = ("_read",)

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        fast.wake_parser_once(response.content)
        self._read = response.content.readany

    async def __call__(self) -> bytes:
        try:
            return await self._read()
        except _CONNECTION_ERRORS as error:
            raise ModelError("The model's answer broke off: the connection was lost.") from error


def _trace_config(tracing: Tracing) -> aiohttp.TraceConfig:
    """Hooks that send the trace's headers with each request."""

    async def on_start(session: object, context: object, params: aiohttp.TraceRequestStartParams) -> None:
        tracing.inject_context(params.headers, params.url.host, params.url.port)

    config = aiohttp.TraceConfig()
    config.on_request_start.append(on_start)
    return config


async def _split(body: bytes) -> AsyncGenerator[memoryview, None]:
    view = memoryview(body)
    for start in range(0, len(body), WRITE_BYTES):
        yield view[start : start + WRITE_BYTES]


async def _read_error(response: aiohttp.ClientResponse, key: str) -> ForgelineError:
    body = bytearray()
    try:
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            while len(body) < MAX_ERROR_BODY_BYTES and (block := await response.content.readany()):
                body += block
    except (*_CONNECTION_ERRORS, TimeoutError):
        pass  # the status alone is enough for an error
    message = read_error_message(bytes(body[:MAX_ERROR_BODY_BYTES]), key)
    return error_from_status(response.status, message, parse_retry_after(response.headers.get("Retry-After")))


def _connection_error(error: Exception, address: str, connect_seconds: float) -> ForgelineError:
    """Translate an exception of aiohttp's that came before a response. `address` is host:port."""
    match error:
        case TimeoutError():
            reason = f"no connection within {connect_seconds:g} s"
        case aiohttp.ClientSSLError():
            reason = "no TLS connection could be made"
        case aiohttp.ClientConnectorDNSError():
            reason = "its name can't be resolved"
        case aiohttp.ClientConnectorError():
            reason = os.strerror(error.errno) if error.errno else "no connection could be made"
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return ModelError(f"What {address} answered is not HTTP.")
        case ValueError():
            reason = "the base_url in this model's preset can't be used"
        case _:
            reason = "it closed the connection without an answer"
    retryable = not isinstance(error, aiohttp.ClientSSLError | ValueError)
    return Unavailable(f"Cannot reach {address}: {reason}.", retryable=retryable)


def _safe_cause(error: Exception) -> BaseException | None:
    """The error as a cause that may be logged: a ClientResponseError's repr shows the request's headers."""
    return error.__cause__ if isinstance(error, aiohttp.ClientResponseError) else error
