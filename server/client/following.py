"""What goes on over as many connections as it takes: a stream that is followed, a request that may be repeated."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from server.client.api import ANSWER, Api, Event, Request
from server.client.errors import ClientError, Lost, Refused, Unreachable

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds between two attempts to reach the server again


class Patience:
    """How long a server may be away, once it was there: `seconds`. `say` is told when it goes and comes back."""

    def __init__(self, seconds: float, say: Callable[[str], None]) -> None:
        self._seconds = seconds
        self._say = say
        self._was_there = False
        self._lost_at: float | None = None
        self._pause = FIRST_PAUSE

    async def wait(self, error: ClientError) -> None:
        """Returns when it is time to try again. Raises `error` where that would not help, or has not for too long."""
        now = time.monotonic()
        if not self._may_pass(error) or (self._lost_at is not None and now - self._lost_at > self._seconds):
            raise error
        if self._lost_at is None:
            self._was_there = True
            self._lost_at, self._pause = now, FIRST_PAUSE
            self._say("The connection was lost; reconnecting …")
        await asyncio.sleep(jittered(self._pause))
        self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def is_there(self) -> None:
        """To be called whenever the server has answered."""
        self._was_there = True
        if self._lost_at is not None:
            self._lost_at = None
            self._say("The server is back; going on where it stopped.")

    def _may_pass(self, error: ClientError) -> bool:
        if isinstance(error, Refused):  # a server that is going down or coming up answers so
            return self._lost_at is not None and error.status in (429, 502, 503, 504)
        # One that is not there at the first attempt is told at once.
        return isinstance(error, Lost) or (isinstance(error, Unreachable) and self._was_there)


def jittered(seconds: float) -> float:
    """Between half and all of it, so that clients don't come back all at once."""
    return seconds * random.uniform(0.5, 1)  # noqa: S311 - no secret


async def follow(
    api: Api, request: Request, resume: Callable[[], Request | None], patience: Patience
) -> AsyncGenerator[Event, None]:
    """All events up to `complete`, none twice, and none missing.

    `resume` gives the request that goes on after the last event that was handed out; None where there can be none.
    """
    while True:
        try:
            async with aclosing(api.events(request)) as events:
                async for event in events:
                    patience.is_there()
                    if event["type"] != "heartbeat":
                        yield event
                    if event["type"] == "complete":
                        return
            raise Lost(f"The connection to {api.url} was lost.")
        except ClientError as error:
            again = resume()
            if again is None:
                raise
            await patience.wait(error)
            request = again


async def follow_bytes(
    api: Api, request_from: Callable[[int], Request], patience: Patience
) -> AsyncGenerator[bytes, None]:
    """A body, byte for byte. `request_from` asks for what begins at an offset."""
    offset = 0
    while True:
        try:
            async with aclosing(api.pieces(request_from(offset))) as pieces:
                async for piece in pieces:
                    patience.is_there()
                    offset += len(piece)
                    yield piece
            return
        except ClientError as error:
            await patience.wait(error)


async def insist(api: Api, request: Request, patience: Patience, seconds: float = ANSWER) -> Any:
    """The answer to a request that does the same however often it is sent."""
    while True:
        try:
            value = await api.ask(request, seconds)
        except ClientError as error:
            await patience.wait(error)
        else:
            patience.is_there()
            return value
