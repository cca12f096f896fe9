"""nginx as shipped, in front of a real server: streams token by token, WebSockets, and errors in one shape."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from server import wire
from tests.aio import soon, unhurried
from tests.deploy.proxy import NAME, Proxy, proxied
from tests.server.checks import check_stream, text_of
from tests.serving import asks, says, sse_events
from tests.sockets import talking
from tests.upstream import Upstream, stream_of

MINUTES = 5
PACE = 0.5  # seconds between two tokens
TOKENS = [f"tok{number} " for number in range(int(MINUTES * 60 / PACE))]
LAG = 5.0  # seconds that a token may take on its way on a machine that is busy; nginx's own buffers would take forever
PATIENT = {"first_token": 600, "between_tokens": 600}

pytestmark = pytest.mark.slow

Event = dict[str, Any]


class Steps:
    """An upstream's answer whose next token is made only after the reader had the last one, and a pause: where
    anything on the way keeps a token back, there will never be another."""

    def __init__(self) -> None:
        self._had = [asyncio.Event() for _ in TOKENS]
        self._made = time.monotonic()
        self.lags: list[float] = []  # seconds from a token's making to its arrival
        self.answer = stream_of([piece for pair in zip(TOKENS, self._had, strict=True) for piece in pair])

    def arrived(self) -> None:
        """A token has come: the next one is made after a pause."""
        self.lags.append(time.monotonic() - self._made)
        self._made = time.monotonic() + PACE
        asyncio.get_running_loop().call_later(PACE, self._had[len(self.lags) - 1].set)


class Reader:
    """Reads one stream to its end over as many connections as it takes. `connect` is given the events that there are,
    and hands out further ones until its connection ends."""

    def __init__(self, connect: Callable[[list[Event]], AsyncIterator[Event]], on_chunk: Callable[[], None]) -> None:
        self._connect = connect
        self._on_chunk = on_chunk
        self.events: list[Event] = []
        self.connections = 0

    async def read(self) -> list[Event]:
        while not self.events or self.events[-1]["type"] != "complete":
            with suppress(aiohttp.ClientError, EOFError):
                async for event in self._connect(self.events):
                    self.events.append(event)
                    if event["type"] == "chunk":
                        self._on_chunk()
            await asyncio.sleep(0.1)
        return self.events


def over_sse(proxy: Proxy, model: str, heartbeats: list[float]) -> Callable[[list[Event]], AsyncIterator[Event]]:
    async def connect(have: list[Event]) -> AsyncIterator[Event]:
        if have:
            path = f"{proxy.url}/api/streams/{have[0]['stream_id']}"
            asked = proxy.http.get(path, headers={"Last-Event-ID": str(have[-1]["seq"]), "Accept": wire.SSE})
        else:
            asked = proxy.http.post(f"{proxy.url}/api/stream/{model}", json={"text": "go", "resumable": True})
        async with asked as response:
            if response.status == 503:  # nginx is there again
                return
            assert response.status == 200, await response.text()
            while block := await response.content.readuntil(b"\n\n"):
                (event,) = sse_events(block)
                if event["type"] == "heartbeat":
                    heartbeats.append(time.monotonic())
                else:
                    yield event

    async def until_cut(have: list[Event]) -> AsyncIterator[Event]:
        try:
            async for event in connect(have):
                yield event
        except asyncio.IncompleteReadError:  # the connection has ended
            return

    return until_cut


def over_socket(proxy: Proxy, model: str) -> Callable[[list[Event]], AsyncIterator[Event]]:
    async def connect(have: list[Event]) -> AsyncIterator[Event]:
        server = _Behind(proxy)
        async with talking(server) as talk:
            if have:
                await talk.say(op="resume", id=1, stream_id=have[0]["stream_id"], after=have[-1]["seq"])
            else:
                await talk.say(op="infer", id=1, model=model, text="go", resumable=True)
            while True:
                event = await talk.next(1)
                yield event
                if event["type"] == "complete":
                    return

    return connect


class _Behind:
    """The server, as who asks it through nginx sees it."""

    def __init__(self, proxy: Proxy) -> None:
        self.url = proxy.url
        self.http = proxy.http


@pytest.mark.timeout(MINUTES * 60 + 240)
def test_five_minutes_pass_token_by_token_and_outlive_a_restart_of_nginx(tmp_path: Path) -> None:
    asyncio.run(soon(five_minutes(tmp_path), MINUTES * 60 + 200))


async def five_minutes(folder: Path) -> None:
    """At once: a stream by SSE, one on a WebSocket, one that is silent for minutes, a plain answer that takes some."""
    async with Upstream() as up:
        names = ("sse", "socket", "quiet", "plain")
        models = {name: asks(up.base_url, name, timeouts=PATIENT) for name in names}
        steps = {"sse": Steps(), "socket": Steps()}
        rest = asyncio.Event()
        up.answers = {name: one.answer for name, one in steps.items()}
        up.answers |= dict.fromkeys(("quiet", "plain"), stream_of(["Hello", rest, " world"]))
        async with proxied(folder, models=models) as proxy:
            heartbeats: list[float] = []
            readers = {
                "sse": Reader(over_sse(proxy, "sse", heartbeats), steps["sse"].arrived),
                "socket": Reader(over_socket(proxy, "socket"), steps["socket"].arrived),
                "quiet": Reader(over_sse(proxy, "quiet", heartbeats), lambda: None),
            }
            reading = [asyncio.create_task(reader.read(), name=name) for name, reader in readers.items()]
            await asyncio.sleep(MINUTES * 60 / 2)
            await restart(proxy, readers)
            plain = asyncio.create_task(ask_plainly(proxy))
            await asyncio.gather(*reading[:2])
            assert not plain.done()
            rest.set()
            told = dict(zip(names, [*await asyncio.gather(*reading), []], strict=True))
            assert await plain == "Hello world"
    for name, one in steps.items():
        report(name, one.lags)
        assert [event["delta"] for event in told[name] if event["type"] == "chunk"] == TOKENS
        assert text_of(check_stream(told[name])[name]) == "".join(TOKENS)
    assert text_of(check_stream(told["quiet"])["quiet"]) == "Hello world"
    assert len(heartbeats) > MINUTES * 60 / 10 * 0.8  # each after 10 s of silence
    assert len(up.requests) == len(names)  # nobody was asked twice


async def restart(proxy: Proxy, readers: dict[str, Reader]) -> None:
    """Every reader is cut off in the middle of its stream, and nginx comes back."""
    before = {name: len(reader.events) for name, reader in readers.items()}
    assert min(before["sse"], before["socket"]) > 10
    await proxy.stop()
    await asyncio.sleep(2)
    assert {name: len(reader.events) for name, reader in readers.items()} == before
    await proxy.start()


async def ask_plainly(proxy: Proxy) -> str:
    async with proxy.http.post(f"{proxy.url}/api/models/plain", json={"text": "go"}) as response:
        assert response.status == 200, await response.text()
        return text_of(await response.json())


def report(name: str, lags: list[float]) -> None:
    """The longest is the restart's: one token was made while nginx was away."""
    ordered = sorted(lags)
    median, high = (ordered[int(len(lags) * part)] * 1000 for part in (0.5, 0.99))
    print(f"{name}: {len(lags)} tokens; lag p50 {median:.1f} ms, p99 {high:.1f} ms", end="")
    print(f", longest {ordered[-2]:.2f} s; at the restart {ordered[-1]:.2f} s")
    assert ordered[-2] < LAG


# --- what else it does -----------------------------------------------------------------------------


@unhurried
async def test_nginx_finds_no_fault_in_it(tmp_path: Path) -> None:
    async with proxied(tmp_path, models={"m": says("echo")}) as proxy:
        told = await proxy.check()
    assert "test is successful" in told
    assert "warn" not in told


@unhurried
async def test_a_stream_passes_http2_too(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    async with proxied(tmp_path, models={"m": says("say:Hello there, world")}) as proxy:
        where = ["--resolve", f"{NAME}:{proxy.port}:127.0.0.1", "--cacert", str(proxy.folder / "cert.pem")]
        asked = ["--json", '{"text": "hi"}', "-H", f"Accept: {wire.SSE}", f"{proxy.url}/api/stream/m"]
        child = await asyncio.create_subprocess_exec(
            *("curl", "--silent", "--http2", "--write-out", "%{stderr}%{http_version}", *where, *asked),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await child.communicate()
    assert err == b"2"
    assert text_of(check_stream(sse_events(out))["m"]) == "Hello there, world"


@unhurried
async def test_errors_keep_their_one_shape(tmp_path: Path) -> None:
    async with proxied(tmp_path, "--max-body", "100000", models={"m": says("echo")}) as proxy:
        large = {"text": "x" * 300_000}
        assert await refusal(proxy, "/api/models/m", large) == (413, "too_large")
        assert await refusal(proxy, "/api/models/nobody", {"text": "hi"}) == (404, "unknown_model")
        await proxy.server.stopped()
        assert await refusal(proxy, "/api/models/m", {"text": "hi"}) == (503, "unavailable")


async def refusal(proxy: Proxy, path: str, body: Any) -> tuple[int, str]:
    async with proxy.http.post(proxy.url + path, json=body) as response:
        told = json.loads(await response.read())
        assert set(told) >= {"time", "request", "error", "code", "request_id"}
        assert response.headers["Content-Type"].startswith("application/json")
        return response.status, told["code"]


@unhurried
async def test_metrics_stay_inside_and_pages_of_other_sites_outside(tmp_path: Path) -> None:
    async with proxied(tmp_path, models={"m": says("echo")}) as proxy:
        statuses = []
        for path, headers in (
            ("/metrics", {}),
            ("/api/models", {"Origin": "https://evil.example"}),
            ("/api/models", {"Origin": proxy.url}),
            ("/", {}),
        ):
            async with proxy.http.get(proxy.url + path, headers=headers) as response:
                statuses.append(response.status)
    assert statuses == [404, 403, 200, 200]


@unhurried
async def test_a_client_that_leaves_ends_the_call_through_nginx_too(tmp_path: Path) -> None:
    async with Upstream() as up:
        up.answer = stream_of(["Hello", asyncio.Event()])
        async with proxied(tmp_path, models={"m": asks(up.base_url)}) as proxy:
            async with proxy.http.post(f"{proxy.url}/api/stream/m", json={"text": "hi"}) as response:
                await response.content.readuntil(b"chunk")
                assert response.connection is not None
                assert response.connection.transport is not None
                response.connection.transport.abort()
            await soon(up.idle(), 5)  # not first when the next heartbeat finds nobody
            assert up.cancelled == 1
