"""Fuzzing: ten thousand bodies, messages and byte strings never cause a 5xx, a hang or a leak.

A part runs always, all of them with the slow tests. The examples are the same in each run.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.async_tests import wait_until, within_deadline
from tests.fuzz import strategies
from tests.raw_http import raw_connection, request_head
from tests.running_server import RunningServer, running_server, scripted_model
from tests.server.checks import check_error, check_stream
from tests.sockets import JSON, MSGPACK, TEXT, connect_websocket, frame, handshake_request, open_raw_connection

EXAMPLE_COUNTS = pytest.mark.parametrize("count", [200, pytest.param(1800, marks=pytest.mark.slow)])
ERROR_CODES = {400: "invalid_request", 404: "unknown_model", 406: "not_acceptable", 415: "unsupported_media_type"}
MODELS = {
    "m": scripted_model("echo"),
    "n": scripted_model("say:a b c", capabilities=["text", "image", "video", "stream"]),
}


class FuzzedServer:
    """A server in an event loop that runs only during a check."""

    def __init__(self, runner: asyncio.Runner, server: RunningServer) -> None:
        self.server = server
        self._runner = runner

    def check_examples(
        self, count: int, values: st.SearchStrategy[Any], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        """Send `count` examples, then check that no task or file is left over."""

        @settings(
            max_examples=count,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(values)
        def check(value: Any) -> None:
            self._runner.run(within_deadline(send(value)))

        tasks, files = self._runner.run(within_deadline(self._count_resources()))
        check()
        self._runner.run(within_deadline(self._count_resources(tasks, files)))

    async def _count_resources(self, tasks: int = 1000, files: int = 1000) -> tuple[int, int]:
        """Return the numbers of tasks and open files, once they are at most these."""
        assert (await self.server.post("/api/models/m", {"text": "hi"})).text == "hi"
        await self.server.wait_until_idle()
        await wait_until(lambda: not self.server.services.websockets)
        await wait_until(lambda: len(asyncio.all_tasks()) <= tasks and len(os.listdir("/proc/self/fd")) <= files)
        return len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))


@pytest.fixture(scope="module")
def fuzz_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuzzedServer]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        server = runner.run(stack.enter_async_context(running_server(tmp_path_factory.mktemp("fuzz"), models=MODELS)))
        yield FuzzedServer(runner, server)
        runner.run(stack.aclose())


PATHS = st.sampled_from(["/api/models/m", "/api/stream/n", "/api/multi-inference", "/api/claude4"])
ACCEPT_HEADERS = st.sampled_from(["*/*", "application/json", "application/msgpack", "text/event-stream", "text/plain"])


@EXAMPLE_COUNTS
@pytest.mark.parametrize(
    ("content_type", "bodies"),
    [("application/json", strategies.JSON_BODIES), ("application/msgpack", strategies.MSGPACK_BODIES)],
)
def test_fuzzed_body_never_causes_server_error(
    fuzz_server: FuzzedServer, content_type: str, bodies: st.SearchStrategy[bytes], count: int
) -> None:
    async def send(case: tuple[str, str, bytes]) -> None:
        path, accept, body = case
        headers = {"Content-Type": content_type, "Accept": accept}
        response = await fuzz_server.server.request("POST", path, data=body, headers=headers)
        if response.status != 200:
            check_error(response, response.status, ERROR_CODES[response.status])
        elif response.headers["Content-Type"] == "text/event-stream":
            check_stream(response.events)

    fuzz_server.check_examples(count, st.tuples(PATHS, ACCEPT_HEADERS, bodies), send)


@EXAMPLE_COUNTS
@pytest.mark.parametrize(
    ("protocol", "messages"), [(JSON, strategies.JSON_MESSAGES), (MSGPACK, strategies.MSGPACK_MESSAGES)]
)
def test_websocket_answers_after_fuzzed_messages(
    fuzz_server: FuzzedServer, protocol: str, messages: st.SearchStrategy[str | bytes], count: int
) -> None:
    async def send(messages: list[str | bytes]) -> None:
        async with connect_websocket(fuzz_server.server, protocols=(protocol,)) as websocket:
            for message in messages:
                await (websocket.ws.send_str(message) if isinstance(message, str) else websocket.ws.send_bytes(message))
            await websocket.send(op="infer", id="the last", model="m", text="hi")
            event = await websocket.next_message()
            while event.get("id") != "the last" or event["type"] != "complete":
                assert event.get("code") not in ("internal", "model_error", "unavailable"), event
                event = await websocket.next_message()

    fuzz_server.check_examples(count, st.lists(messages, min_size=1, max_size=3), send)


REQUEST_BODY = b'{"text":"hi"}'
REQUEST_HEAD = request_head("/api/models/m", length=len(REQUEST_BODY), Accept="application/json", Connection="close")


@EXAMPLE_COUNTS
def test_fuzzed_http_bytes_are_answered_or_close_connection(fuzz_server: FuzzedServer, count: int) -> None:
    async def send(messages: bytes) -> None:
        async with raw_connection(fuzz_server.server) as line:
            await line.send(messages)
            line.writer.write_eof()
            response = await line.wait_closed()
            assert not response or response.split(b" ", 2)[1] < b"500", response

    fuzz_server.check_examples(
        count, strategies.mutated_bytes(st.just(REQUEST_HEAD + REQUEST_BODY)) | st.binary(max_size=200), send
    )


WEBSOCKET_BYTES = (
    handshake_request() + frame(TEXT, b'{"op":"infer","id":"a","model":"m","text":"hi"}', masked=False) * 2
)


@EXAMPLE_COUNTS
def test_fuzzed_websocket_frames_are_answered_or_close_connection(fuzz_server: FuzzedServer, count: int) -> None:
    async def send(messages: bytes) -> None:
        async with open_raw_connection(fuzz_server.server) as line:
            await line.send(messages)
            line.socket.shutdown(1)
            response = await line.read_to_end()
            assert not response or response.split(b" ", 2)[1] < b"500", response

    frames = st.binary(max_size=80).map(lambda data: handshake_request() + data)
    fuzz_server.check_examples(count, strategies.mutated_bytes(st.just(WEBSOCKET_BYTES)) | frames, send)
