"""Ten thousand bodies and messages that nobody would send: never a 5xx, a hang, or anything left behind.

A part of them in every run, all of them where slow tests run. The same ones each time.
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

from tests.aio import comes_true, soon
from tests.fuzz import shapes
from tests.rawhttp import connected, head
from tests.server.checks import check_error, check_stream
from tests.serving import Server, says, serving
from tests.sockets import JSON, MSGPACK, TEXT, frame, handshake, raw_line, talking

PORTIONS = pytest.mark.parametrize("count", [200, pytest.param(1800, marks=pytest.mark.slow)])
REFUSALS = {400: "invalid_request", 404: "unknown_model", 406: "not_acceptable", 415: "unsupported_media_type"}
MODELS = {"m": says("echo"), "n": says("say:a b c", capabilities=["text", "image", "video", "stream"])}


class Fuzzed:
    """A server in a loop that runs while something is asked of it."""

    def __init__(self, runner: asyncio.Runner, server: Server) -> None:
        self.server = server
        self._runner = runner

    def each(self, count: int, values: st.SearchStrategy[Any], ask: Callable[[Any], Awaitable[None]]) -> None:
        """Asks so many times, and looks that nothing of it is left."""

        @settings(
            max_examples=count,
            derandomize=True,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(values)
        def one(value: Any) -> None:
            self._runner.run(soon(ask(value)))

        tasks, files = self._runner.run(soon(self._left()))
        one()
        self._runner.run(soon(self._left(tasks, files)))

    async def _left(self, tasks: int = 1000, files: int = 1000) -> tuple[int, int]:
        """The tasks and the open files and connections, once they are no more than so many."""
        assert (await self.server.post("/api/models/m", {"text": "hi"})).text == "hi"
        await self.server.ended()
        await comes_true(lambda: not self.server.services.sockets)
        await comes_true(lambda: len(asyncio.all_tasks()) <= tasks and len(os.listdir("/proc/self/fd")) <= files)
        return len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        server = runner.run(stack.enter_async_context(serving(tmp_path_factory.mktemp("fuzz"), models=MODELS)))
        yield Fuzzed(runner, server)
        runner.run(stack.aclose())


PATHS = st.sampled_from(["/api/models/m", "/api/stream/n", "/api/multi-inference", "/api/claude4"])
ACCEPTS = st.sampled_from(["*/*", "application/json", "application/msgpack", "text/event-stream", "text/plain"])


@PORTIONS
@pytest.mark.parametrize(
    ("kind", "bodies"), [("application/json", shapes.JSON_BODIES), ("application/msgpack", shapes.MSGPACK_BODIES)]
)
def test_any_body_gets_an_answer_that_is_no_fault_of_the_server(
    fuzzed: Fuzzed, kind: str, bodies: st.SearchStrategy[bytes], count: int
) -> None:
    async def ask(case: tuple[str, str, bytes]) -> None:
        path, accept, body = case
        headers = {"Content-Type": kind, "Accept": accept}
        answer = await fuzzed.server.request("POST", path, data=body, headers=headers)
        if answer.status != 200:
            check_error(answer, answer.status, REFUSALS[answer.status])
        elif answer.headers["Content-Type"] == "text/event-stream":
            check_stream(answer.events)

    fuzzed.each(count, st.tuples(PATHS, ACCEPTS, bodies), ask)


@PORTIONS
@pytest.mark.parametrize(("protocol", "messages"), [(JSON, shapes.JSON_MESSAGES), (MSGPACK, shapes.MSGPACK_MESSAGES)])
def test_after_any_messages_a_socket_still_answers(
    fuzzed: Fuzzed, protocol: str, messages: st.SearchStrategy[str | bytes], count: int
) -> None:
    async def ask(sent: list[str | bytes]) -> None:
        async with talking(fuzzed.server, protocols=(protocol,)) as talk:
            for message in sent:
                await (talk.ws.send_str(message) if isinstance(message, str) else talk.ws.send_bytes(message))
            await talk.say(op="infer", id="the last", model="m", text="hi")
            told = await talk.any()
            while told.get("id") != "the last" or told["type"] != "complete":
                assert told.get("code") not in ("internal", "model_error", "unavailable"), told
                told = await talk.any()

    fuzzed.each(count, st.lists(messages, min_size=1, max_size=3), ask)


REQUEST = b'{"text":"hi"}'
HEAD = head("/api/models/m", length=len(REQUEST), Accept="application/json", Connection="close")


@PORTIONS
def test_any_bytes_on_a_connection_are_answered_or_end_it(fuzzed: Fuzzed, count: int) -> None:
    async def ask(sent: bytes) -> None:
        async with connected(fuzzed.server) as line:
            await line.send(sent)
            line.writer.write_eof()
            answer = await line.closed()
            assert not answer or answer.split(b" ", 2)[1] < b"500", answer

    fuzzed.each(count, shapes.mutated(st.just(HEAD + REQUEST)) | st.binary(max_size=200), ask)


SOCKET = handshake() + frame(TEXT, b'{"op":"infer","id":"a","model":"m","text":"hi"}', masked=False) * 2


@PORTIONS
def test_any_frames_on_a_socket_are_answered_or_end_it(fuzzed: Fuzzed, count: int) -> None:
    async def ask(sent: bytes) -> None:
        async with raw_line(fuzzed.server) as line:
            await line.send(sent)
            line.line.shutdown(1)
            answer = await line.rest()
            assert not answer or answer.split(b" ", 2)[1] < b"500", answer

    frames = st.binary(max_size=80).map(lambda data: handshake() + data)
    fuzzed.each(count, shapes.mutated(st.just(SOCKET)) | frames, ask)
