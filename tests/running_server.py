"""A whole server for a test: real sockets, real preset files, in the test's own loop.

async with running_server(tmp_path, models={"echo": {"provider": "scripted", "model": "echo"}}) as server:
    answer = await server.post("/api/models/echo", {"text": "hello"})
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import msgpack
import yaml

from pipeline.providers.scripted import ScriptedProvider
from server.app import ROUTES
from server.config import parse_options
from server.lifecycle import running
from server.openapi.route import Route
from server.services import Services

if TYPE_CHECKING:
    from pipeline.telemetry.otel import Tracing

STAGES = ["decode_frames", "route_model", "fit_frames", "limit", "invoke", "normalize_envelope"]


@dataclass(frozen=True)
class HttpResponse:
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def events(self) -> list[dict[str, Any]]:
        return parse_sse(self.content)

    @property
    def ndjson_events(self) -> list[dict[str, Any]]:
        """The events of an NDJSON body."""
        return [json.loads(line) for line in self.content.splitlines()]

    @property
    def unpacked(self) -> Any:
        return msgpack.unpackb(self.content)

    @property
    def text(self) -> str:
        """The text of an envelope."""
        text: str = self.json["response"]["content"][0]["text"]
        return text


class LiveStream:
    """An SSE answer that is read as it comes."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next_event(self) -> dict[str, Any]:
        """The next event; raises EOFError where there is none."""
        try:
            block = await self.response.content.readuntil(b"\n\n")
        except asyncio.IncompleteReadError as error:
            raise EOFError from error
        if not block:
            raise EOFError
        return parse_sse(block)[0]

    async def remaining_events(self) -> list[dict[str, Any]]:
        return parse_sse(await self.response.read())


@dataclass(frozen=True)
class RunningServer:
    services: Services
    url: str
    http: aiohttp.ClientSession

    async def request(self, method: str, path: str, **kwargs: Any) -> HttpResponse:
        async with self.http.request(method, self.url + path, **kwargs) as response:
            return HttpResponse(response.status, response.headers, await response.read())

    async def get(self, path: str, **headers: str) -> HttpResponse:
        return await self.request("GET", path, headers=headers)

    async def post(self, path: str, body: Any, **headers: str) -> HttpResponse:
        return await self.request("POST", path, json=body, headers=headers)

    @asynccontextmanager
    async def open_stream(self, path: str, body: Any, **headers: str) -> AsyncIterator[LiveStream]:
        """Events as they come; leaving the block closes the connection."""
        accept = {"Accept": "text/event-stream"}
        async with self.http.post(self.url + path, json=body, headers=accept | headers) as response:
            try:
                yield LiveStream(response)
            finally:
                response.close()

    async def wait_until_idle(self) -> None:
        """Returns when nothing is being answered any more, and nothing was left behind."""
        await spin_until(lambda: not self.services.streams.running_count)
        await self.services.in_flight.wait_until_empty()
        left = {task.get_name() for task in asyncio.all_tasks()}
        assert not [name for name in left if name.startswith(("stream", "model"))]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def scripted(self) -> ScriptedProvider:
        provider = self.services.runtime.providers["scripted"]
        assert isinstance(provider, ScriptedProvider)
        return provider


@asynccontextmanager
async def running_server(  # noqa: PLR0913 - each is what one kind of test sets
    folder: Path,
    *flags: str,
    models: Mapping[str, Mapping[str, Any]] | None = None,
    stages: list[Any] | None = None,
    environ: Mapping[str, str] | None = None,
    traces: Tracing | None = None,
    routes: Sequence[Route] = ROUTES,
) -> AsyncIterator[RunningServer]:
    """`models` are presets by name, in place of the shipped ones; `flags` are those of run.py."""
    write_presets(folder / "presets", models or {}, stages)
    arguments = ["--port", "0", "--presets", str(folder / "presets"), "--data", str(folder / "data"), "--drain", "0.1"]
    options = parse_options([*arguments, *flags], environ or {})
    async with running(options, traces, routes) as (services, url):
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as http:
            yield RunningServer(services, url, http)


async def spin_until(condition: Callable[[], object]) -> None:
    """Return once `condition` holds, checked at each turn of the loop: for states that last only a few turns."""
    while not condition():  # noqa: ASYNC110 - as above
        await asyncio.sleep(0)


def write_presets(folder: Path, models: Mapping[str, Mapping[str, Any]], stages: list[Any] | None = None) -> None:
    (folder / "models").mkdir(parents=True, exist_ok=True)
    (folder / "pipeline.yaml").write_text(yaml.safe_dump({"stages": stages or STAGES}))
    for name, preset in models.items():
        (folder / "models" / f"{name}.yaml").write_text(yaml.safe_dump(dict(preset)))


def scripted_model(script: str, **keys: Any) -> dict[str, Any]:
    """The preset of a model that answers by a script."""
    return {"provider": "scripted", "model": script, "capabilities": ["text", "image", "stream"], **keys}


def upstream_model(base_url: str, model: str = "m", **keys: Any) -> dict[str, Any]:
    """The preset of a model behind an OpenAI-compatible upstream."""
    return {
        "provider": "openai_compatible",
        "model": model,
        "base_url": base_url,
        "capabilities": ["text", "image", "stream"],
        **keys,
    }


def parse_sse(content: bytes) -> list[dict[str, Any]]:
    """The events of an SSE body; that `id` and `event` say the same as the data is checked on the way."""
    events = []
    for block in content.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        event = json.loads(fields["data"])
        assert fields["event"] == event["type"]
        position = event.get("seq", event.get("next_offset"))
        assert fields.get("id") == (None if position is None else str(position))
        events.append(event)
    return events
