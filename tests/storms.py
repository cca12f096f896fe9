"""Load scenarios for tests: a whole server, a misbehaving upstream, many calls at once, and what must hold afterwards.

async with start_storm(tmp_path, concurrency={"calls": 8}) as storm:
    storm.upstream.response = reject_every_third(error_response(429))
    calls = storm.send(500)
    await storm.reload()
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

from pipeline.presets.pipeline import DEFAULT_STAGES
from pipeline.stages.limit import AdmissionController
from tests.async_tests import wait_until
from tests.running_server import HttpResponse, RunningServer, running_server, upstream_model
from tests.server.observability.scraping import scrape
from tests.upstream import Responder, Upstream, stream_response


@dataclass
class Storm:
    """A server with the model `m` at `upstream`. Each call has a different text."""

    server: RunningServer
    upstream: Upstream
    folder: Path
    preset: dict[str, Any]
    reload_count: int = 0
    _sent_count: int = field(default=0, init=False)

    def send(self, calls: int, path: str = "/api/models/m", **headers: str) -> asyncio.Future[list[HttpResponse]]:
        """Start this many calls at once."""
        return asyncio.gather(*(self._call(path, headers) for _ in range(calls)))

    def _call(self, path: str, headers: Mapping[str, str]) -> Coroutine[Any, Any, HttpResponse]:
        self._sent_count += 1
        return self.server.post(path, {"text": f"{headers.get('X-API-Key', '')} {self._sent_count}"}, **headers)

    async def reload(self, **keys: Any) -> None:
        """Write the model's preset with these keys, and wait until it is in force."""
        self.reload_count += 1
        self.preset |= keys
        self.preset["limits"] = {"max_tokens": 1000 + self.reload_count}
        path = self.folder / "models" / "m.yaml"
        path.with_name(".m.yaml").write_text(yaml.safe_dump(self.preset))
        path.with_name(".m.yaml").replace(path)
        runtime = self.server.services.runtime
        await wait_until(lambda: runtime.models["m"].limits.max_tokens == 1000 + self.reload_count)

    def controller(self, model: str = "m") -> AdmissionController:
        return self.server.services.runtime.context.state(model, AdmissionController)

    @property
    def received_texts(self) -> list[str]:
        """The texts that the upstream received, in order."""
        return [request.body["messages"][0]["content"] for request in self.upstream.requests]

    async def check_idle(self) -> None:
        """Assert that nothing is open, every permit is released, and no call is counted as running."""
        await self.server.wait_until_idle()
        await self.upstream.wait_until_idle()
        numbers = await scrape(self.server)
        for name in ("open_streams", "open_sockets", "upstream_connections", "queue_length"):
            assert numbers(name) == 0, name
        for model in self.server.services.runtime.models:
            controller = self.controller(model)
            assert (controller.running, controller.waiting) == (0, 0)


@asynccontextmanager
async def start_storm(
    folder: Path, *, other_models: Mapping[str, Any] | None = None, keys: str = "", **preset: Any
) -> AsyncIterator[Storm]:
    """Run a server with the model `m` and `other_models` (preset keys by name) at one upstream.

    `keys` are comma-separated API keys.
    """
    async with Upstream() as upstream:
        model_preset = upstream_model(upstream.base_url, "m", **preset)
        models = {
            name: upstream_model(upstream.base_url, name, **(keys_ or {}))
            for name, keys_ in (other_models or {}).items()
        }
        environ = {"FORGELINE_API_KEYS": keys}
        stages = list(DEFAULT_STAGES)
        async with running_server(
            folder, models={"m": model_preset, **models}, stages=stages, environ=environ
        ) as server:
            storm = Storm(server, upstream, folder / "presets", model_preset)
            yield storm
            if not keys:
                await storm.check_idle()


def reject_every_third(rejection: Responder, answer: Responder | None = None) -> Responder:
    """Answer every third request with `rejection`."""
    count, success = 0, answer or stream_response(["Hello"])

    async def respond(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        return await (rejection if count % 3 == 0 else success)(request)

    return respond


def rotate_answers(*answers: Responder) -> Responder:
    """Answer the requests with these answers in turn."""
    count = -1

    async def respond(request: web.Request) -> web.StreamResponse:
        nonlocal count
        count += 1
        return await answers[count % len(answers)](request)

    return respond


def count_statuses(answers: list[HttpResponse]) -> dict[int, int]:
    return dict(Counter(answer.status for answer in answers))
