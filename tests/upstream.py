"""An OpenAI-compatible upstream for tests: real HTTP over loopback, and every way to respond well or badly.

    async with Upstream() as upstream:
        gate = asyncio.Event()
        upstream.response = stream_response(["Hello", gate, " world"])    # for every request, or ...
        upstream.responses["slow"] = hanging_response()                   # ... for those whose body names this model
        ...                                                               # send a request to upstream.base_url
        gate.set()                                                        # now " world" is sent
        await upstream.wait_until_idle()                                  # no request is being answered any more

A responder is a function `async (request: web.Request) -> web.StreamResponse`. Responders are made by
`stream_response`, `json_response`, `error_response`, `raw_response` and `hanging_response`. `upstream.requests` has the
requests.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from aiohttp import web

Responder = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Cut:
    """In a list of pieces: the connection ends here, in the middle of the response."""


CUT: Final = Cut()

Piece = str | bytes | dict[str, Any] | asyncio.Event | Cut
"""The text of one chunk; raw bytes; a chunk's whole object; an event to wait for; or the cut."""

RawPiece = bytes | asyncio.Event | Cut


@dataclass(frozen=True)
class RecordedRequest:
    """A request that was received. `received_at` is in monotonic seconds."""

    path: str
    headers: Mapping[str, str]
    body: Any
    received_at: float


class Upstream:
    """The server. `stop` makes it refuse connections, `start` makes it accept them again.

    `in_flight` requests are being answered, `max_in_flight` is the maximum; `cancelled` counts the requests that the
    client has given up.
    """

    def __init__(self) -> None:
        self.response: Responder = stream_response(["Hello", " world"])
        self.responses: dict[str, Responder] = {}
        self.requests: list[RecordedRequest] = []
        self.in_flight = 0
        self.max_in_flight = 0
        self.cancelled = 0
        self.base_url = ""
        self._transports: set[asyncio.BaseTransport | None] = set()
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def connection_count(self) -> int:
        """How many connections there have been."""
        return len(self._transports)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        host, self._port = self._runner.addresses[0][:2]
        self.base_url = f"http://{host}:{self._port}/v1"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def wait_until_idle(self) -> None:
        """Return when no request is being answered."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.in_flight == 0)

    async def wait_for_requests(self, count: int = 1) -> None:
        """Return when this many requests have been received."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= count)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self._transports.add(request.transport)
        body = json.loads(await request.read())
        self.requests.append(RecordedRequest(request.path, dict(request.headers), body, time.monotonic()))
        await self._count(1)
        try:
            return await self.responses.get(body.get("model", ""), self.response)(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            await self._count(-1)

    async def _count(self, change: int) -> None:
        async with self._changed:
            self.in_flight += change
            self.max_in_flight = max(self.max_in_flight, self.in_flight)
            self._changed.notify_all()


# --- responders ------------------------------------------------------------------------------------


def stream_response(  # noqa: PLR0913 - each is one way in which upstreams differ
    pieces: Sequence[Piece],
    *,
    sse: bool = True,
    done: bool = True,
    finish_reason: str | None = "stop",
    usage: tuple[int, int] | None = (3, 2),
    newline: str = "\n",
    cut_at: int | None = None,
    block_size: int | None = None,
) -> Responder:
    """A streamed response; `sse=False`: bare JSON lines. See `stream_bytes`, and `raw_response` for the last two."""
    content_type = "text/event-stream" if sse else "application/x-ndjson"
    chunks = stream_bytes(pieces, sse=sse, done=done, finish_reason=finish_reason, usage=usage, newline=newline)
    return raw_response(chunks, headers={"Content-Type": content_type}, cut_at=cut_at, block_size=block_size)


def stream_bytes(  # noqa: PLR0913 - as above
    pieces: Iterable[Piece],
    *,
    sse: bool = True,
    done: bool = True,
    finish_reason: str | None = "stop",
    usage: tuple[int, int] | None = (3, 2),
    newline: str = "\n",
) -> list[RawPiece]:
    """The stream's bytes, with its events and cuts in between. `finish_reason=None`: none is sent."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "upstream-model"}
    chunks: list[RawPiece] = []

    def add(chunk: dict[str, Any]) -> None:
        line = json.dumps(head | chunk) + newline
        chunks.append(f"data: {line}{newline}".encode() if sse else line.encode())

    for piece in pieces:
        if isinstance(piece, str):
            add({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
        elif isinstance(piece, dict):
            add(piece)
        else:
            chunks.append(piece)
    if finish_reason is not None:
        add({"choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]})
    if usage is not None:
        add({"choices": [], "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}})
    if done:
        chunks.append(f"data: [DONE]{newline}{newline}".encode())
    return chunks


def json_response(
    text: str, *, finish_reason: str = "stop", usage: tuple[int, int] = (3, 2), indent: int | None = None
) -> Responder:
    """The response as one JSON object."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    tokens = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    completion = {"id": "chatcmpl-1", "model": "upstream-model", "choices": [choice], "usage": tokens}
    return raw_response([json.dumps(completion, indent=indent).encode()])


def error_response(status: int, error: Any = "no", *, headers: Mapping[str, str] | None = None) -> Responder:
    """An HTTP error, with `{"error": error}`."""
    return raw_response([json.dumps({"error": error}).encode()], status=status, headers=headers)


def hanging_response() -> Responder:
    """Never responds."""
    return raw_response([asyncio.Event()])


def raw_response(
    pieces: Sequence[RawPiece],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    cut_at: int | None = None,
    block_size: int | None = None,
) -> Responder:
    """These bytes. The connection ends after `cut_at` bytes of them; they are written `block_size` at a time.

    An event before the first bytes holds the status line back as well.
    """

    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"Content-Type": "application/json", **(headers or {})})
        remaining = cut_at
        for piece in pieces:
            if isinstance(piece, asyncio.Event):
                await piece.wait()
                continue
            if not response.prepared:
                await response.prepare(request)
            data = b"" if isinstance(piece, Cut) else piece if remaining is None else piece[:remaining]
            await _write(response, data, block_size)
            if remaining is not None:
                remaining -= len(data)
            if isinstance(piece, Cut) or remaining == 0:
                _close_connection(request)
                return response
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()
        return response

    return respond


async def _write(response: web.StreamResponse, data: bytes, block_size: int | None) -> None:
    step = block_size or len(data) or 1
    for start in range(0, len(data), step):
        await response.write(data[start : start + step])
        if block_size:
            await asyncio.sleep(0)  # so that the reader may run between two blocks


def _close_connection(request: web.Request) -> None:
    """Close the connection in mid-response. Written bytes are still sent; `transport.abort()` would drop them."""
    if request.transport is not None:
        request.transport.close()
