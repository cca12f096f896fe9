"""A whole server for a test: real sockets, real preset files, in the test's own loop.

async with serving(tmp_path, models={"echo": {"provider": "scripted", "model": "echo"}}) as server:
    answer = await server.post("/api/models/echo", {"text": "hello"})
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import msgpack
import yaml

import run
from pipeline.providers.scripted import Scripted
from server.options import parse
from server.services import Services

if TYPE_CHECKING:
    from pipeline.otel import Tracing

STAGES = ["decode_frames", "route_model", "fit_frames", "limit", "invoke", "normalize_envelope"]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def events(self) -> list[dict[str, Any]]:
        return sse_events(self.content)

    @property
    def lines(self) -> list[dict[str, Any]]:
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


class Live:
    """An SSE answer that is read as it comes."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> dict[str, Any]:
        """The next event; raises EOFError where there is none."""
        try:
            block = await self.response.content.readuntil(b"\n\n")
        except asyncio.IncompleteReadError as error:
            raise EOFError from error
        if not block:
            raise EOFError
        return sse_events(block)[0]

    async def rest(self) -> list[dict[str, Any]]:
        return sse_events(await self.response.read())


@dataclass(frozen=True)
class Server:
    services: Services
    url: str
    http: aiohttp.ClientSession

    async def request(self, method: str, path: str, **kwargs: Any) -> Answer:
        async with self.http.request(method, self.url + path, **kwargs) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.request("GET", path, headers=headers)

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        return await self.request("POST", path, json=body, headers=headers)

    @asynccontextmanager
    async def live(self, path: str, body: Any, **headers: str) -> AsyncIterator[Live]:
        """Events as they come; leaving the block closes the connection."""
        accept = {"Accept": "text/event-stream"}
        async with self.http.post(self.url + path, json=body, headers=accept | headers) as response:
            try:
                yield Live(response)
            finally:
                response.close()

    async def ended(self) -> None:
        """Returns when nothing is being answered any more, and nothing was left behind."""
        await until(lambda: not self.services.streams.running)
        await self.services.answering.none_left()
        left = {task.get_name() for task in asyncio.all_tasks()}
        assert not [name for name in left if name.startswith(("stream", "model"))]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def scripted(self) -> Scripted:
        provider = self.services.runtime.providers["scripted"]
        assert isinstance(provider, Scripted)
        return provider


@asynccontextmanager
async def serving(
    folder: Path,
    *flags: str,
    models: Mapping[str, Mapping[str, Any]] | None = None,
    stages: list[Any] | None = None,
    environ: Mapping[str, str] | None = None,
    traces: Tracing | None = None,
) -> AsyncIterator[Server]:
    """`models` are presets by name, in place of the shipped ones; `flags` are those of run.py."""
    write_presets(folder / "presets", models or {}, stages)
    arguments = ["--port", "0", "--presets", str(folder / "presets"), "--data", str(folder / "data"), "--drain", "0.1"]
    async with run.running(parse([*arguments, *flags], environ or {}), traces) as (services, url):
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as http:
            yield Server(services, url, http)


async def until(condition: Callable[[], object]) -> None:
    """Returns when this holds: for what happens inside the server, and tells nobody."""
    while not condition():  # noqa: ASYNC110 - as above
        await asyncio.sleep(0)


def write_presets(folder: Path, models: Mapping[str, Mapping[str, Any]], stages: list[Any] | None = None) -> None:
    (folder / "models").mkdir(parents=True, exist_ok=True)
    (folder / "pipeline.yaml").write_text(yaml.safe_dump({"stages": stages or STAGES}))
    for name, preset in models.items():
        (folder / "models" / f"{name}.yaml").write_text(yaml.safe_dump(dict(preset)))


def says(script: str, **keys: Any) -> dict[str, Any]:
    """The preset of a model that answers by a script."""
    return {"provider": "scripted", "model": script, "capabilities": ["text", "image", "stream"], **keys}


def asks(base_url: str, model: str = "m", **keys: Any) -> dict[str, Any]:
    """The preset of a model behind an OpenAI-compatible upstream."""
    return {
        "provider": "openai_compatible",
        "model": model,
        "base_url": base_url,
        "capabilities": ["text", "image", "stream"],
        **keys,
    }


def sse_events(content: bytes) -> list[dict[str, Any]]:
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
