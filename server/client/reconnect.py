"""Reconnecting: event streams, bodies and idempotent requests that survive the loss of their connection."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

from server.client.api import REQUEST_TIMEOUT, ApiClient, EventFields, Request
from server.client.errors import ApiError, ClientError, ConnectionLost, ServerUnreachable

INITIAL_DELAY, MAX_DELAY = 0.1, 2.0  # seconds between two attempts to reach the server again


class ReconnectPolicy:
    """How long to keep trying after the connection to a server was lost.

    `max_outage` is in seconds. `notify` is called with a sentence when the connection is lost and when it is back.
    """

    def __init__(self, max_outage: float, notify: Callable[[str], None]) -> None:
        self._max_outage = max_outage
        self._notify = notify
        self._was_connected = False
        self._disconnected_at: float | None = None  # time.monotonic()
        self._delay = INITIAL_DELAY

    async def wait_before_retry(self, error: ClientError) -> None:
        """Return when it is time to try again. Raises `error` if a retry can't help or the outage lasts too long."""
        now = time.monotonic()
        is_over = self._disconnected_at is not None and now - self._disconnected_at > self._max_outage
        if not self._is_retryable(error) or is_over:
            raise error
        if self._disconnected_at is None:
            self._was_connected = True
            self._disconnected_at, self._delay = now, INITIAL_DELAY
            self._notify("The connection was lost; reconnecting …")
        await asyncio.sleep(add_jitter(self._delay))
        self._delay = min(self._delay * 2, MAX_DELAY)

    def mark_connected(self) -> None:
        """Record that the server has answered. Call it after every response."""
        self._was_connected = True
        if self._disconnected_at is not None:
            self._disconnected_at = None
            self._notify("The server is back; going on where it stopped.")

    def _is_retryable(self, error: ClientError) -> bool:
        if isinstance(error, ApiError):  # a server that is starting or shutting down answers with one of these
            return self._disconnected_at is not None and error.status in (429, 502, 503, 504)
        # A server that can't be reached at the first attempt is reported at once.
        return isinstance(error, ConnectionLost) or (isinstance(error, ServerUnreachable) and self._was_connected)


def add_jitter(seconds: float) -> float:
    """Return between half and all of `seconds`, so that clients don't come back all at once."""
    return seconds * random.uniform(0.5, 1)  # noqa: S311 - no secret


async def follow_events(
    api: ApiClient, request: Request, resume: Callable[[], Request | None], reconnect: ReconnectPolicy
) -> AsyncGenerator[EventFields, None]:
    """Yield every event once, up to and including `complete`, over as many connections as that takes.

    `resume` returns the request for the events after the last one yielded, or None if the stream can't be resumed.
    """
    while True:
        try:
            async with aclosing(api.stream_events(request)) as events:
                async for event in events:
                    reconnect.mark_connected()
                    if event["type"] != "heartbeat":
                        yield event
                    if event["type"] == "complete":
                        return
            raise ConnectionLost(f"The connection to {api.url} was lost.")
        except ClientError as error:
            next_request = resume()
            if next_request is None:
                raise
            await reconnect.wait_before_retry(error)
            request = next_request


async def follow_bytes(
    api: ApiClient, request_from: Callable[[int], Request], reconnect: ReconnectPolicy
) -> AsyncGenerator[bytes, None]:
    """Yield every byte of a body once. `request_from` returns the request for the bytes from an offset on."""
    offset = 0
    while True:
        try:
            async with aclosing(api.stream_bytes(request_from(offset))) as chunks:
                async for chunk in chunks:
                    reconnect.mark_connected()
                    offset += len(chunk)
                    yield chunk
            return
        except ClientError as error:
            await reconnect.wait_before_retry(error)


async def request_with_retry(
    api: ApiClient, request: Request, reconnect: ReconnectPolicy, seconds: float = REQUEST_TIMEOUT
) -> Any:
    """Send an idempotent request until it is answered, waiting `seconds` each time. Returns the decoded body."""
    while True:
        try:
            value = await api.send(request, seconds)
        except ClientError as error:
            await reconnect.wait_before_retry(error)
        else:
            reconnect.mark_connected()
            return value
