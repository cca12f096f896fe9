"""An OpenAI-compatible upstream for tests: real HTTP over loopback, and every way to answer well or badly.

    async with Upstream() as up:
        gate = asyncio.Event()
        up.answer = stream_of(["Hello", gate, " world"])    # for every request, or ...
        up.answers["slow"] = hang()                         # ... for those whose body names this model
        ...                                                 # ask up.base_url
        gate.set()                                          # now " world" is sent
        await up.idle()                                     # nobody is being answered any more

An answer is a function `async (request: web.Request) -> web.StreamResponse`; the ones here are made by `stream_of`,
`whole`, `refusal`, `raw` and `hang`. What was asked is in `up.requests`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Cut:
    """In a list of pieces: here the connection ends, in the middle of the answer."""


CUT: Final = Cut()

Piece = str | bytes | dict[str, Any] | asyncio.Event | Cut
"""Text of one chunk; bytes as they are; a chunk's whole object; an event to wait for; or the cut."""

Raw = bytes | asyncio.Event | Cut


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    path: str
    headers: Mapping[str, str]
    body: Any


class Upstream:
    """`answering` requests are being answered, `most` at once; `cancelled` were given up by the client; `connected`
    is how many connections there ever were. `close` makes it refuse connections, `open` brings it back.
    """

    def __init__(self) -> None:
        self.answer: Answer = stream_of(["Hello", " world"])
        self.answers: dict[str, Answer] = {}
        self.requests: list[Asked] = []
        self.answering = 0
        self.most = 0
        self.cancelled = 0
        self.base_url = ""
        self._transports: set[asyncio.BaseTransport | None] = set()
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def connected(self) -> int:
        return len(self._transports)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def open(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        host, self._port = self._runner.addresses[0][:2]
        self.base_url = f"http://{host}:{self._port}/v1"

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def idle(self) -> None:
        """Returns when no request is being answered."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.answering == 0)

    async def asked(self, count: int = 1) -> None:
        """Returns when so many requests have come."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= count)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self._transports.add(request.transport)
        body = json.loads(await request.read())
        self.requests.append(Asked(request.path, dict(request.headers), body))
        await self._count(1)
        try:
            return await self.answers.get(body.get("model", ""), self.answer)(request)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            await self._count(-1)

    async def _count(self, change: int) -> None:
        async with self._changed:
            self.answering += change
            self.most = max(self.most, self.answering)
            self._changed.notify_all()


# --- answers ---------------------------------------------------------------------------------------


def stream_of(  # noqa: PLR0913 - each is one way in which upstreams differ
    pieces: Sequence[Piece],
    *,
    sse: bool = True,
    done: bool = True,
    finish: str | None = "stop",
    usage: tuple[int, int] | None = (3, 2),
    newline: str = "\n",
    cut_at: int | None = None,
    block: int | None = None,
) -> Answer:
    """A streamed answer; `sse=False`: bare JSON lines. See `stream_bytes` for the rest, `raw` for the last two."""
    kind = "text/event-stream" if sse else "application/x-ndjson"
    coded = stream_bytes(pieces, sse=sse, done=done, finish=finish, usage=usage, newline=newline)
    return raw(coded, headers={"Content-Type": kind}, cut_at=cut_at, block=block)


def stream_bytes(  # noqa: PLR0913 - as above
    pieces: Iterable[Piece],
    *,
    sse: bool = True,
    done: bool = True,
    finish: str | None = "stop",
    usage: tuple[int, int] | None = (3, 2),
    newline: str = "\n",
) -> list[Raw]:
    """The stream's bytes, with its events and cuts in between. `finish=None`: no finish_reason is sent."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "upstream-model"}
    coded: list[Raw] = []

    def add(chunk: dict[str, Any]) -> None:
        line = json.dumps(head | chunk) + newline
        coded.append(f"data: {line}{newline}".encode() if sse else line.encode())

    for piece in pieces:
        if isinstance(piece, str):
            add({"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]})
        elif isinstance(piece, dict):
            add(piece)
        else:
            coded.append(piece)
    if finish is not None:
        add({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    if usage is not None:
        add({"choices": [], "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}})
    if done:
        coded.append(f"data: [DONE]{newline}{newline}".encode())
    return coded


def whole(text: str, *, finish: str = "stop", usage: tuple[int, int] = (3, 2), indent: int | None = None) -> Answer:
    """The answer as one JSON object."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    tokens = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    answer = {"id": "chatcmpl-1", "model": "upstream-model", "choices": [choice], "usage": tokens}
    return raw([json.dumps(answer, indent=indent).encode()])


def refusal(status: int, error: Any = "no", *, headers: Mapping[str, str] | None = None) -> Answer:
    """An HTTP error, with `{"error": error}`."""
    return raw([json.dumps({"error": error}).encode()], status=status, headers=headers)


def hang() -> Answer:
    """Never answers."""
    return raw([asyncio.Event()])


def raw(
    pieces: Sequence[Raw],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    cut_at: int | None = None,
    block: int | None = None,
) -> Answer:
    """These very bytes. The connection ends after `cut_at` bytes of them, and they go out `block` at a time.

    An event before the first bytes holds the status line back as well.
    """

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"Content-Type": "application/json", **(headers or {})})
        left = cut_at
        for piece in pieces:
            if isinstance(piece, asyncio.Event):
                await piece.wait()
                continue
            if not response.prepared:
                await response.prepare(request)
            data = b"" if isinstance(piece, Cut) else piece if left is None else piece[:left]
            await _write(response, data, block)
            if left is not None:
                left -= len(data)
            if isinstance(piece, Cut) or left == 0:
                _abort(request)
                return response
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()
        return response

    return answer


async def _write(response: web.StreamResponse, data: bytes, block: int | None) -> None:
    step = block or len(data) or 1
    for at in range(0, len(data), step):
        await response.write(data[at : at + step])
        if block:
            await asyncio.sleep(0)  # so that the reader may run between two blocks


def _abort(request: web.Request) -> None:
    """Ends the connection, not the answer. What was written is still sent: `transport.abort()` would drop it."""
    if request.transport is not None:
        request.transport.close()
