"""The client of the soak's users: it checks the status of every response, and a wrong one ends the soak."""

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

Message = dict[str, Any]

REQUEST: Message = {"text": "What are the nodes of this cluster for?", "max_tokens": 100}
SSE = "text/event-stream"


class SoakFailure(Exception):
    """A response of Forgeline is wrong."""


def check(is_correct: object, details: object) -> None:
    if not is_correct:
        raise SoakFailure(str(details)[:2000])


@dataclass
class Client:
    """State that all users share. `rng` has a fixed seed, so that runs are similar."""

    url: str
    http: aiohttp.ClientSession
    rng: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 - no secret
    turns: Counter[str] = field(default_factory=Counter)  # by kind of user
    job_id: str = ""  # of the job that runs at the moment

    async def request(self, method: str, path: str, status: int = 200, **kwargs: Any) -> Any:
        """Send a request and check its status. Returns the body, decoded if it is JSON."""
        async with self.http.request(method, self.url + path, **kwargs) as response:
            body = await response.read()
            check(response.status == status, f"{method} {path}: {response.status}, not {status}: {body!r}")
            return await response.json() if response.content_type == "application/json" else body

    @asynccontextmanager
    async def stream(self, model: str, accept: str = SSE, **fields: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        url = f"{self.url}/api/stream/{model}"
        async with self.http.post(url, json=REQUEST | fields, headers={"Accept": accept}) as response:
            check(response.status == 200, f"{url}: {response.status}")
            yield response

    @asynccontextmanager
    async def socket(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        url = self.url.replace("http", "ws", 1) + "/ws"
        async with self.http.ws_connect(url, protocols=["forgeline.v1.json"]) as socket:
            yield socket


async def receive_until(
    socket: aiohttp.ClientWebSocketResponse, kind: str, times: int = 1, **fields: str
) -> list[Message]:
    """Receive messages up to the one of type `kind` with these fields, or up to the last of `times` such ones."""
    messages: list[Message] = []
    while times:
        messages.append(await socket.receive_json())
        times -= messages[-1]["type"] == kind and fields.items() <= messages[-1].items()
    return messages
