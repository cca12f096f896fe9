"""An OpenAI-compatible `/chat/completions` over HTTP: a body goes out, a reply comes back as it streams.

No provider of its own: all that ask such an upstream over HTTP share this.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Collection
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from pipeline.errors import ForgelineError, ModelError, Unavailable
from pipeline.messages import Reply
from pipeline.providers.chat_answer import AnswerReader, begin_answer
from pipeline.providers.chat_errors import error_for_status, message_in_body, read_retry_after

if TYPE_CHECKING:
    from pipeline.otel import Tracing

MAX_ERROR_BODY: Final = 64 * 1024  # bytes that are read of an error's body
ERROR_BODY_TIME: Final = 2.0  # seconds that its arrival may take
LINGER: Final = 1.0  # seconds that a connection has to end its answer after [DONE], to be used again
IDLE: Final = 4.0  # seconds; uvicorn, which vLLM and SGLang run on, closes an idle connection after 5
SLICE: Final = 256 * 1024  # bytes of a large body that are written at once

_BROKEN: Final = (aiohttp.ClientError, HttpProcessingError, OSError, RuntimeError)
"""All that aiohttp raises for a connection; RuntimeError where it was closed before the read."""


class ChatHttp:
    """One long-lived HTTP session for all models of a provider."""

    def __init__(self, tracing: Tracing | None = None) -> None:
        self._tracing = tracing
        self._session: aiohttp.ClientSession | None = None
        self._lingering: set[aiohttp.ClientResponse] = set()

    async def close(self) -> None:
        """Closes every connection, those of open replies as well."""
        for response in [*self._lingering]:
            self._end(response)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def connected(self) -> aiohttp.ClientSession:
        """The session, which needs a running loop; it is made where nobody has yet."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(),
                trace_configs=None if self._tracing is None else [_carrying(self._tracing)],
            )
        return self._session

    async def post(self, url: URL, key: str, body: bytes, connect: float) -> aiohttp.ClientResponse:
        """Asks; `key` may be "". Raises Unavailable where the upstream can't be reached, ModelError where what
        it speaks is not HTTP. The response is the caller's to hand to `answer`, or to close.
        """
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        data = body if len(body) <= SLICE else _slices(body)
        try:
            return await self.connected().post(
                url, data=data, headers=headers, timeout=_to_connect(connect), allow_redirects=False
            )
        except (*_BROKEN, ValueError) as error:
            raise _unanswered(error, f"{url.host}:{url.port}", connect) from _without_headers(error)

    async def answer(self, response: aiohttp.ClientResponse, key: str, stops: Collection[str]) -> Reply:
        """The reply, its first chunk in hand. Raises what `chat_errors` makes of a refusal, ModelError where what
        is answered can't be read.
        """
        try:
            if response.status != 200:
                raise await _refusal(response, key)
            is_json = response.content_type == "application/json"
            reader = AnswerReader(stops=stops, whole_json=is_json, secret=key)
            parts = await begin_answer(_Blocks(response), reader)
        except BaseException:
            response.close()
            raise
        return Reply(
            parts, lambda: self._let_go(response, reader), id=reader.id, model=reader.model, streamed=reader.streamed
        )

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


@lru_cache(maxsize=256)
def _to_connect(seconds: float) -> aiohttp.ClientTimeout:
    """`connect` also bounds the look-up of the name, which `sock_connect` does not; no pool is ever waited for."""
    return aiohttp.ClientTimeout(connect=seconds, sock_connect=seconds)


class _Blocks:
    """Gives a response's bytes as they come, its errors translated."""

    __slots__ = ("_read",)

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        # Below this mark aiohttp wakes its parser at each piece that is taken. Here all pieces are taken at once, and
        # only the last has to: that is a tenth of a burst's token. What sets it in public sets the upper mark too.
        response.content._low_water = 1
        self._read = response.content.readany

    async def __call__(self) -> bytes:
        try:
            return await self._read()
        except _BROKEN as error:
            raise ModelError("The model's answer broke off: the connection was lost.") from error


def _carrying(tracing: Tracing) -> aiohttp.TraceConfig:
    """Each request takes the trace along that it is part of."""

    async def begin(session: object, context: object, params: aiohttp.TraceRequestStartParams) -> None:
        tracing.outgoing(params.headers, params.url.host, params.url.port)

    config = aiohttp.TraceConfig()
    config.on_request_start.append(begin)
    return config


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
    passing = not isinstance(error, aiohttp.ClientSSLError | ValueError)
    return Unavailable(f"Cannot reach {where}: {why}.", retryable=passing)


def _without_headers(error: Exception) -> BaseException | None:
    """The error as a cause that may be logged: a ClientResponseError's repr shows the request's headers."""
    return error.__cause__ if isinstance(error, aiohttp.ClientResponseError) else error
