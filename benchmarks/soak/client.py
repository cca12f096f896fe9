"""How the soak's users ask: every answer's status is checked, and a wrong answer ends the soak."""

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

Message = dict[str, Any]

ASKED: Message = {"text": "What are the nodes of this cluster for?", "max_tokens": 100}
SSE = "text/event-stream"


class Wrong(Exception):
    """Forgeline answered something else than it should."""


def check(right: object, told: object) -> None:
    if not right:
        raise Wrong(str(told)[:2000])


@dataclass
class Client:
    """What all users share. `rng` has a seed, so that two runs ask much the same."""

    url: str
    http: aiohttp.ClientSession
    rng: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311 - no secret
    turns: Counter[str] = field(default_factory=Counter)  # by the kind of user
    job: str = ""  # the one whose log grows just now

    async def answer(self, method: str, path: str, status: int = 200, **kwargs: Any) -> Any:
        """The body, parsed where it is JSON, of an answer that has this status."""
        async with self.http.request(method, self.url + path, **kwargs) as answer:
            body = await answer.read()
            check(answer.status == status, f"{method} {path}: {answer.status}, not {status}: {body!r}")
            return await answer.json() if answer.content_type == "application/json" else body

    @asynccontextmanager
    async def stream(self, model: str, accept: str = SSE, **more: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        address = f"{self.url}/api/stream/{model}"
        async with self.http.post(address, json=ASKED | more, headers={"Accept": accept}) as answer:
            check(answer.status == 200, f"{address}: {answer.status}")
            yield answer

    @asynccontextmanager
    async def socket(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        url = self.url.replace("http", "ws", 1) + "/ws"
        async with self.http.ws_connect(url, protocols=["forgeline.v1.json"]) as socket:
            yield socket


async def heard(socket: aiohttp.ClientWebSocketResponse, kind: str, times: int = 1, **fields: str) -> list[Message]:
    """The messages of a socket up to the one of this type with these fields, or to the last of so many."""
    told: list[Message] = []
    while times:
        told.append(await socket.receive_json())
        times -= told[-1]["type"] == kind and fields.items() <= told[-1].items()
    return told
