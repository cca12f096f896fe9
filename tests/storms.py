"""Storms for tests: a whole server before an upstream that misbehaves, many calls at once, and what has to hold after.

async with storm(tmp_path, concurrency={"calls": 8}) as sky:
    sky.up.answer = every_third(refusal(429))
    calls = sky.blow(500)
    await sky.reload()
    answers = await calls
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from pipeline.presets import DEFAULT_STAGES
from pipeline.stages.limit import Gate
from tests.aio import comes_true
from tests.server.scraping import scrape
from tests.serving import Answer, Server, asks, serving
from tests.upstream import Answer as Told
from tests.upstream import Upstream, stream_of


@dataclass
class Storm:
    """The model `m` behind `up`. Each call asks with a text of its own."""

    server: Server
    up: Upstream
    folder: Path
    preset: dict[str, Any]
    reloads: int = 0
    _asked: int = field(default=0, init=False)

    def blow(self, calls: int, path: str = "/api/models/m", **headers: str) -> asyncio.Future[list[Answer]]:
        """So many calls at once."""
        return asyncio.gather(*(self._call(path, headers) for _ in range(calls)))

    def _call(self, path: str, headers: Mapping[str, str]) -> Coroutine[Any, Any, Answer]:
        self._asked += 1
        return self.server.post(path, {"text": f"{headers.get('X-API-Key', '')} {self._asked}"}, **headers)

    async def reload(self, **keys: Any) -> None:
        """Saves the model's preset with these keys, and returns when it is in force."""
        self.reloads += 1
        self.preset |= keys
        self.preset["limits"] = {"max_tokens": 1000 + self.reloads}
        path = self.folder / "models" / "m.yaml"
        path.with_name(".m.yaml").write_text(yaml.safe_dump(self.preset))
        path.with_name(".m.yaml").replace(path)
        models = self.server.services.runtime
        await comes_true(lambda: models.models["m"].limits.max_tokens == 1000 + self.reloads)

    def gate(self, model: str = "m") -> Gate:
        gate: Gate = self.server.services.runtime.context.state(model).get("limit", Gate())
        return gate

    @property
    def texts(self) -> list[str]:
        """What the upstream was asked, in the order in which it came."""
        return [request.body["messages"][0]["content"] for request in self.up.requests]

    async def calm(self) -> None:
        """Nothing is open any more, every permit is back, and no call is counted as under way."""
        await self.server.ended()
        await self.up.idle()
        numbers = await scrape(self.server)
        for name in ("open_streams", "open_sockets", "upstream_connections", "queue_length"):
            assert numbers(name) == 0, name
        for state in self.server.services.runtime.context.states.values():
            if "limit" in state:
                assert (state["limit"].running, state["limit"].waiting) == (0, 0)


@asynccontextmanager
async def storm(
    folder: Path, *, others: Mapping[str, Any] | None = None, keys: str = "", **preset: Any
) -> AsyncIterator[Storm]:
    """`others` are what the presets of more models behind the same upstream say; `keys` are API keys."""
    async with Upstream() as up:
        mine = asks(up.base_url, "m", **preset)
        models = {name: asks(up.base_url, name, **(keys_ or {})) for name, keys_ in (others or {}).items()}
        environ = {"FORGELINE_API_KEYS": keys}
        stages = list(DEFAULT_STAGES)
        async with serving(folder, models={"m": mine, **models}, stages=stages, environ=environ) as server:
            sky = Storm(server, up, folder / "presets", mine)
            yield sky
            if not keys:
                await sky.calm()


def every_third(refused: Told, answer: Told | None = None) -> Told:
    """Each third request is refused."""
    count, answered = 0, answer or stream_of(["Hello"])

    async def tell(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        return await (refused if count % 3 == 0 else answered)(request)

    return tell


def in_turn(*answers: Told) -> Told:
    """The first request gets the first answer, and so on round and round."""
    count = -1

    async def tell(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        return await answers[count % len(answers)](request)

    return tell


def statuses(answers: list[Answer]) -> dict[int, int]:
    return dict(Counter(answer.status for answer in answers))
