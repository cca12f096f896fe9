"""HTTP client of one server: sends requests; returns values, bytes or server-sent events; raises ClientError."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp
import msgspec
from yarl import URL

from server.client.errors import (
    ApiError,
    ClientError,
    ConnectionLost,
    ResponseTimeout,
    ServerUnreachable,
    UsageError,
)

CONNECT_TIMEOUT = 10.0  # seconds
IDLE_TIMEOUT = 60.0  # seconds without a byte until a stream counts as lost: a server's heartbeat is far shorter
REQUEST_TIMEOUT = 60.0  # seconds, for requests that the server answers without asking a model

ACCEPT_SSE = {"Accept": "text/event-stream"}

EventFields = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """One HTTP request. `path` is relative to the server's URL; `body` is sent unchanged."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


def json_post(path: str, value: Any, **headers: str) -> Request:
    """Build a POST request with a JSON body. In header names `_` stands for `-`."""
    extra_headers = {name.replace("_", "-"): header for name, header in headers.items()}
    return Request("POST", path, headers={"Content-Type": "application/json", **extra_headers}, body=encode_json(value))


def encode_json(value: Any) -> bytes:
    """Raises UsageError for text with lone surrogates (arguments that were not valid UTF-8)."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError as error:
        raise UsageError("What was given is not valid UTF-8.") from error


class ApiClient:
    """Client of one server. An async context manager. Every method raises ClientError."""

    def __init__(self, server: str, key: str | None = None) -> None:
        self.url = _validate_url(server)
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
        return await self.send(Request("GET", path, params or {}))

    async def send(self, request: Request, seconds: float = REQUEST_TIMEOUT) -> Any:
        """Return the decoded JSON body, or None if the body is empty. Raises ConnectionLost after `seconds`."""
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_TIMEOUT)
        async with self._open(request, timeout) as response:
            content = await response.read()
        return _decode_json(content)

    async def stream_bytes(self, request: Request) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives. Raises ConnectionLost if it breaks off."""
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT, sock_read=IDLE_TIMEOUT)
        async with self._open(request, timeout) as response:
            async for chunk in response.content.iter_any():
                yield chunk

    async def stream_events(self, request: Request) -> AsyncGenerator[EventFields, None]:
        """Yield the decoded data of server-sent events. Parses only what our own server sends."""
        buffer = b""
        async for chunk in self.stream_bytes(request):
            *blocks, buffer = (buffer + chunk).split(b"\n\n")
            for block in blocks:
                yield _decode_json(b"\n".join(_data_lines(block)))

    @asynccontextmanager
    async def _open(self, request: Request, limits: aiohttp.ClientTimeout) -> AsyncIterator[aiohttp.ClientResponse]:
        with self._translate_errors():
            async with self._http.request(
                request.method,
                self.url + request.path,
                params=request.params,
                headers=request.headers,
                data=request.body,
                timeout=limits,
            ) as response:
                if response.status >= 400:
                    raise await _read_error(response)
                yield response

    @contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Raise ClientError in place of aiohttp's errors."""
        try:
            yield
        except aiohttp.InvalidURL as error:
            raise UsageError(f"{self.url} is no address of a server.") from error
        except aiohttp.ClientConnectorCertificateError as error:
            message = f"The certificate of {self.url} can't be trusted: {error.certificate_error}."
            raise ServerUnreachable(message) from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            hint = "`forgeline serve` starts one; --server names another"
            reason = _connect_failure_reason(error)
            raise ServerUnreachable(f"No server answers at {self.url} ({reason}). {hint}.") from error
        except aiohttp.ClientResponseError as error:
            raise ServerUnreachable(f"What answers at {self.url} does not speak HTTP.") from error
        except TimeoutError as error:
            raise ResponseTimeout(f"{self.url} did not answer in time.") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise ConnectionLost(f"The connection to {self.url} was lost.") from error


async def _read_error(response: aiohttp.ClientResponse) -> ApiError:
    content = await response.read()
    try:
        body = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = {"error": f"{response.url.origin()} answers {response.status}, but not as a Forgeline server does."}
    retry_after = response.headers.get("Retry-After", "")
    return ApiError(response.status, body, float(retry_after) if retry_after.isdecimal() else None)


def _validate_url(server: str) -> str:
    """Return the URL without a trailing slash. Raises UsageError."""
    try:
        url = URL(server)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise UsageError(f"--server: expected an address like http://127.0.0.1:5000, not {server!r}.")
    return server.rstrip("/")


def _connect_failure_reason(error: Exception) -> str:
    if not isinstance(error, aiohttp.ClientConnectorError):
        return "it took too long"
    errno = error.os_error.errno or 0
    return os.strerror(errno) if errno > 0 else str(error.os_error.strerror)


def _decode_json(content: bytes) -> Any:
    if not content:
        return None
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ClientError("The answer is no JSON; is this a Forgeline server?") from error


def _data_lines(block: bytes) -> list[bytes]:
    return [line.removeprefix(b"data:").strip() for line in block.split(b"\n") if line.startswith(b"data:")]
