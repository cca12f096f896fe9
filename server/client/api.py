"""A server as its client sees it: requests go out, values, events or errors come back."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
import msgspec
from yarl import URL

from server.client.errors import ClientError, Lost, Misused, Refused, TimedOut, Unreachable

CONNECT = 10.0  # seconds
SILENCE = 60.0  # seconds without a byte, after which a stream counts as lost: a server's heartbeat is far shorter
ANSWER = 60.0  # seconds for what a server knows by itself

EVENTS = {"Accept": "text/event-stream"}

Event = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """`body` is sent as it is."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


def posting(path: str, value: Any, **headers: str) -> Request:
    """A request that carries a value as JSON. The names of headers are written with `_` for `-`."""
    named = {name.replace("_", "-"): header for name, header in headers.items()}
    return Request("POST", path, headers={"Content-Type": "application/json", **named}, body=to_json(value))


def to_json(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError as error:
        raise Misused("What was given is not valid UTF-8.") from error


class Api:
    """One server, and the key for it. An async context manager."""

    def __init__(self, server: str, key: str | None = None) -> None:
        self.url = _checked(server)
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            headers={"User-Agent": "forgeline", **self._headers},
        )
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._http.close()

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        return await self.ask(Request("GET", path, params or {}))

    async def ask(self, request: Request, seconds: float = ANSWER) -> Any:
        """The answer as a value; None where there is none."""
        return _decoded(await self.content(request, seconds))

    async def content(self, request: Request, seconds: float = ANSWER) -> bytes:
        """The answer's body, whole. Raises Lost where it takes longer than `seconds`."""
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT)
        async with self._open(request, timeout) as response:
            return await response.read()

    async def pieces(self, request: Request) -> AsyncGenerator[bytes, None]:
        """The answer's body, as it comes. Raises Lost where it breaks off."""
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT, sock_read=SILENCE)
        async with self._open(request, timeout) as response:
            async for piece in response.content.iter_any():
                yield piece

    async def events(self, request: Request) -> AsyncGenerator[Event, None]:
        """The server-sent events of an answer, as they come."""
        rest = b""
        async for piece in self.pieces(request):
            *blocks, rest = (rest + piece).split(b"\n\n")
            for block in blocks:
                yield _decoded(b"\n".join(_data(block)))

    @asynccontextmanager
    async def _open(self, request: Request, limits: aiohttp.ClientTimeout) -> AsyncIterator[aiohttp.ClientResponse]:
        with self._translated():
            async with self._http.request(
                request.method,
                self.url + request.path,
                params=request.params,
                headers=request.headers,
                data=request.body,
                timeout=limits,
            ) as response:
                if response.status >= 400:
                    raise await self._refusal(response)
                yield response

    async def _refusal(self, response: aiohttp.ClientResponse) -> Refused:
        content = await response.read()
        try:
            body = msgspec.json.decode(content, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            body = {"error": f"{response.url.origin()} answers {response.status}, but not as a Forgeline server does."}
        retry_after = response.headers.get("Retry-After", "")
        return Refused(response.status, body, float(retry_after) if retry_after.isdecimal() else None)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The library's errors as ours."""
        try:
            yield
        except aiohttp.InvalidURL as error:
            raise Misused(f"{self.url} is no address of a server.") from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise Unreachable(f"The certificate of {self.url} can't be trusted: {error.certificate_error}.") from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            hint = "`forgeline serve` starts one; --server names another"
            raise Unreachable(f"No server answers at {self.url} ({_why(error)}). {hint}.") from error
        except aiohttp.ClientResponseError as error:
            raise Unreachable(f"What answers at {self.url} does not speak HTTP.") from error
        except TimeoutError as error:
            raise TimedOut(f"{self.url} did not answer in time.") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Lost(f"The connection to {self.url} was lost.") from error


def _checked(server: str) -> str:
    try:
        url = URL(server)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise Misused(f"--server: expected an address like http://127.0.0.1:5000, not {server!r}.")
    return server.rstrip("/")


def _why(error: Exception) -> str:
    if not isinstance(error, aiohttp.ClientConnectorError):
        return "it took too long"
    number = error.os_error.errno or 0
    return os.strerror(number) if number > 0 else str(error.os_error.strerror)


def _decoded(content: bytes) -> Any:
    if not content:
        return None
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ClientError("The answer is no JSON; is this a Forgeline server?") from error


def _data(block: bytes) -> list[bytes]:
    return [line.removeprefix(b"data:").strip() for line in block.split(b"\n") if line.startswith(b"data:")]
