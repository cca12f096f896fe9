"""The shipped nginx configuration in front of a real server: token streams, WebSockets and error bodies."""

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

from server.inference import encoders
from tests.async_tests import slow_async_test, within_deadline
from tests.deploy.proxy import HOST_NAME, Proxy, start_proxy
from tests.running_server import parse_sse, scripted_model, upstream_model
from tests.server.checks import check_stream, text_of
from tests.sockets import connect_websocket
from tests.upstream import Upstream, stream_response

MINUTES = 5
TOKEN_INTERVAL = 0.5  # seconds between two tokens
TOKENS = [f"tok{number} " for number in range(int(MINUTES * 60 / TOKEN_INTERVAL))]
MAX_LAG = (
    5.0  # seconds that a token may take on its way on a machine that is busy; nginx's own buffers would take forever
)
LONG_TIMEOUTS = {"first_token": 600, "between_tokens": 600}

pytestmark = pytest.mark.slow

Event = dict[str, Any]


class PacedResponse:
    """An upstream response that sends a token only after the reader received the previous one, and a pause.

    If anything on the way buffers a token, the stream stops.
    """

    def __init__(self) -> None:
        self._received = [asyncio.Event() for _ in TOKENS]
        self._sent_at = time.monotonic()
        self.lags: list[float] = []  # seconds from a token's making to its arrival
        self.response = stream_response([piece for pair in zip(TOKENS, self._received, strict=True) for piece in pair])

    def mark_received(self) -> None:
        """Record that a token was received; the next one is sent after a pause."""
        self.lags.append(time.monotonic() - self._sent_at)
        self._sent_at = time.monotonic() + TOKEN_INTERVAL
        asyncio.get_running_loop().call_later(TOKEN_INTERVAL, self._received[len(self.lags) - 1].set)


class ResumingReader:
    """Reads one stream to its end over any number of connections.

    `connect` takes the events received so far and yields further ones until its connection ends.
    """

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


def sse_connector(proxy: Proxy, model: str, heartbeats: list[float]) -> Callable[[list[Event]], AsyncIterator[Event]]:
    async def connect(received: list[Event]) -> AsyncIterator[Event]:
        if received:
            path = f"{proxy.url}/api/streams/{received[0]['stream_id']}"
            request = proxy.http.get(path, headers={"Last-Event-ID": str(received[-1]["seq"]), "Accept": encoders.SSE})
        else:
            request = proxy.http.post(f"{proxy.url}/api/stream/{model}", json={"text": "go", "resumable": True})
        async with request as response:
            if response.status == 503:  # nginx is back, its upstream connection not yet
                return
            assert response.status == 200, await response.text()
            while block := await response.content.readuntil(b"\n\n"):
                (event,) = parse_sse(block)
                if event["type"] == "heartbeat":
                    heartbeats.append(time.monotonic())
                else:
                    yield event

    async def until_cut(received: list[Event]) -> AsyncIterator[Event]:
        try:
            async for event in connect(received):
                yield event
        except asyncio.IncompleteReadError:  # the connection has ended
            return

    return until_cut


def websocket_connector(proxy: Proxy, model: str) -> Callable[[list[Event]], AsyncIterator[Event]]:
    async def connect(received: list[Event]) -> AsyncIterator[Event]:
        server = _ProxiedServer(proxy)
        async with connect_websocket(server) as websocket:
            if received:
                await websocket.send(op="resume", id=1, stream_id=received[0]["stream_id"], after=received[-1]["seq"])
            else:
                await websocket.send(op="infer", id=1, model=model, text="go", resumable=True)
            while True:
                event = await websocket.next_event(1)
                yield event
                if event["type"] == "complete":
                    return

    return connect


class _ProxiedServer:
    """The server as seen through nginx."""

    def __init__(self, proxy: Proxy) -> None:
        self.url = proxy.url
        self.http = proxy.http


@pytest.mark.timeout(MINUTES * 60 + 240)
def test_nginx_passes_streams_for_five_minutes_and_clients_survive_its_restart(tmp_path: Path) -> None:
    asyncio.run(within_deadline(stream_for_five_minutes(tmp_path), MINUTES * 60 + 200))


async def stream_for_five_minutes(folder: Path) -> None:
    """Run four requests at once: SSE, WebSocket, a stream that is idle for minutes, and a slow JSON response."""
    async with Upstream() as upstream:
        names = ("sse", "socket", "quiet", "plain")
        models = {name: upstream_model(upstream.base_url, name, timeouts=LONG_TIMEOUTS) for name in names}
        paced = {"sse": PacedResponse(), "socket": PacedResponse()}
        release = asyncio.Event()
        upstream.responses = {name: response.response for name, response in paced.items()}
        upstream.responses |= dict.fromkeys(("quiet", "plain"), stream_response(["Hello", release, " world"]))
        async with start_proxy(folder, models=models) as proxy:
            heartbeats: list[float] = []
            readers = {
                "sse": ResumingReader(sse_connector(proxy, "sse", heartbeats), paced["sse"].mark_received),
                "socket": ResumingReader(websocket_connector(proxy, "socket"), paced["socket"].mark_received),
                "quiet": ResumingReader(sse_connector(proxy, "quiet", heartbeats), lambda: None),
            }
            reads = [asyncio.create_task(reader.read(), name=name) for name, reader in readers.items()]
            await asyncio.sleep(MINUTES * 60 / 2)
            await restart_proxy(proxy, readers)
            plain = asyncio.create_task(request_plain_answer(proxy))
            await asyncio.gather(*reads[:2])
            assert not plain.done()
            release.set()
            events = dict(zip(names, [*await asyncio.gather(*reads), []], strict=True))
            assert await plain == "Hello world"
    for name, response in paced.items():
        report_lags(name, response.lags)
        assert [event["delta"] for event in events[name] if event["type"] == "chunk"] == TOKENS
        assert text_of(check_stream(events[name])[name]) == "".join(TOKENS)
    assert text_of(check_stream(events["quiet"])["quiet"]) == "Hello world"
    assert len(heartbeats) > MINUTES * 60 / 10 * 0.8  # each after 10 s of silence
    assert len(upstream.requests) == len(names)  # no request was repeated


async def restart_proxy(proxy: Proxy, readers: dict[str, ResumingReader]) -> None:
    """Cut off every reader in the middle of its stream, then start nginx again."""
    before = {name: len(reader.events) for name, reader in readers.items()}
    assert min(before["sse"], before["socket"]) > 10
    await proxy.stop()
    await asyncio.sleep(2)
    assert {name: len(reader.events) for name, reader in readers.items()} == before
    await proxy.start()


async def request_plain_answer(proxy: Proxy) -> str:
    async with proxy.http.post(f"{proxy.url}/api/models/plain", json={"text": "go"}) as response:
        assert response.status == 200, await response.text()
        return text_of(await response.json())


def report_lags(name: str, lags: list[float]) -> None:
    """Print and check the lags. The longest is excluded: one token was sent while nginx was down."""
    ordered = sorted(lags)
    median, high = (ordered[int(len(lags) * part)] * 1000 for part in (0.5, 0.99))
    print(f"{name}: {len(lags)} tokens; lag p50 {median:.1f} ms, p99 {high:.1f} ms", end="")
    print(f", longest {ordered[-2]:.2f} s; at the restart {ordered[-1]:.2f} s")
    assert ordered[-2] < MAX_LAG


# --- other requests -----------------------------------------------------------------------------


@slow_async_test
async def test_nginx_accepts_configuration(tmp_path: Path) -> None:
    async with start_proxy(tmp_path, models={"m": scripted_model("echo")}) as proxy:
        report = await proxy.check()
    assert "test is successful" in report
    assert "warn" not in report


@slow_async_test
async def test_nginx_passes_stream_over_http2(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    async with start_proxy(tmp_path, models={"m": scripted_model("say:Hello there, world")}) as proxy:
        where = ["--resolve", f"{HOST_NAME}:{proxy.port}:127.0.0.1", "--cacert", str(proxy.folder / "cert.pem")]
        request = ["--json", '{"text": "hi"}', "-H", f"Accept: {encoders.SSE}", f"{proxy.url}/api/stream/m"]
        child = await asyncio.create_subprocess_exec(
            *("curl", "--silent", "--http2", "--write-out", "%{stderr}%{http_version}", *where, *request),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await child.communicate()
    assert err == b"2"
    assert text_of(check_stream(parse_sse(out))["m"]) == "Hello there, world"


@slow_async_test
async def test_nginx_keeps_error_bodies(tmp_path: Path) -> None:
    async with start_proxy(tmp_path, "--max-body", "100000", models={"m": scripted_model("echo")}) as proxy:
        large = {"text": "x" * 300_000}
        assert await request_error(proxy, "/api/models/m", large) == (413, "too_large")
        assert await request_error(proxy, "/api/models/nobody", {"text": "hi"}) == (404, "unknown_model")
        await proxy.server.stop()
        assert await request_error(proxy, "/api/models/m", {"text": "hi"}) == (503, "unavailable")


async def request_error(proxy: Proxy, path: str, body: Any) -> tuple[int, str]:
    async with proxy.http.post(proxy.url + path, json=body) as response:
        error = json.loads(await response.read())
        assert set(error) >= {"time", "request", "error", "code", "request_id"}
        assert response.headers["Content-Type"].startswith("application/json")
        return response.status, error["code"]


@slow_async_test
async def test_nginx_hides_metrics_and_rejects_foreign_origins(tmp_path: Path) -> None:
    async with start_proxy(tmp_path, models={"m": scripted_model("echo")}) as proxy:
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


@slow_async_test
async def test_nginx_client_disconnect_cancels_upstream_call(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        upstream.response = stream_response(["Hello", asyncio.Event()])
        async with start_proxy(tmp_path, models={"m": upstream_model(upstream.base_url)}) as proxy:
            async with proxy.http.post(f"{proxy.url}/api/stream/m", json={"text": "hi"}) as response:
                await response.content.readuntil(b"chunk")
                assert response.connection is not None
                assert response.connection.transport is not None
                response.connection.transport.abort()
            await within_deadline(upstream.wait_until_idle(), 5)  # not first when the next heartbeat finds nobody
            assert upstream.cancelled == 1
