"""The OpenAI-compatible provider's connections: kept, let go, refused, broken."""

from __future__ import annotations

import asyncio
import gc
import socket
import traceback
from typing import Any

import pytest

from pipeline.errors import ModelError, Unavailable
from pipeline.presets import Timeouts
from pipeline.providers import chat_http
from tests.aio import asynchronous, soon
from tests.pipeline.providers.asking import (
    ENDED,
    KEY,
    ask,
    inference,
    provider,
    read_all,
    route,
    talking,
)
from tests.upstream import Upstream, hang, raw, stream_bytes, stream_of

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("done", [True, False], ids=["[DONE]", "no [DONE]"])
@asynchronous
async def test_a_connection_is_used_again_once_an_answer_was_read_to_its_end(done: bool) -> None:
    async with talking(stream_of(["Hello"], done=done)) as (up, asking, to):
        for _ in range(3):
            await ask(asking, to)
            await soon(up.idle())
        assert up.connected == 1


@asynchronous
async def test_a_connection_that_does_not_end_after_done_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_http, "LINGER", 0.01)
    async with talking(raw([*stream_bytes(["Hello"]), asyncio.Event()])) as (up, asking, to):
        assert await ask(asking, to) == ["Hello", *ENDED]
        await soon(up.idle())
        assert up.cancelled == 1


@asynchronous
async def test_closing_a_reply_ends_the_upstreams_work() -> None:
    async with talking(stream_of(["Hello", asyncio.Event()])) as (up, asking, to):
        reply = await asking.open(to, inference())
        await reply.aclose()
        await soon(up.idle())
        assert up.cancelled == 1


@asynchronous
async def test_cancelling_in_the_middle_of_a_stream_ends_it_too() -> None:
    async with talking(stream_of(["Hello", asyncio.Event()])) as (up, asking, to):
        reading = asyncio.create_task(ask(asking, to))
        await soon(up.asked())
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await soon(up.idle())


@pytest.mark.parametrize("answer", [hang, lambda: raw([b": ping\n", asyncio.Event()])], ids=["no status", "no chunk"])
@asynchronous
async def test_cancelling_open_ends_the_upstreams_work(answer: Any) -> None:
    async with talking(answer()) as (up, asking, to):
        opening = asyncio.create_task(asking.open(to, inference()))
        await soon(up.asked())
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await soon(up.idle())
        assert up.cancelled == 1


@asynchronous
async def test_many_streams_at_once_wait_for_no_connection() -> None:
    gate = asyncio.Event()
    async with talking(stream_of(["Hello", gate, "!"])) as (up, asking, to):
        replies = await asyncio.gather(*(asking.open(to, inference()) for _ in range(150)))
        assert up.answering == 150
        gate.set()
        assert [await read_all(reply) for reply in replies] == [["Hello", "!", *ENDED]] * 150


@asynchronous
async def test_a_silent_upstream_is_not_ended_by_a_timeout_of_ours() -> None:
    async with talking() as (_, asking, _to):
        await asking.start()
        timeout = asking._http.connected().timeout
        assert (timeout.total, timeout.sock_read) == (None, None)


@asynchronous
async def test_nothing_is_left_open_when_it_closes() -> None:
    async with talking(stream_of(["Hello", asyncio.Event()])) as (up, asking, to):
        reply = await asking.open(to, inference())
        await asking.close()
        with pytest.raises(ModelError):
            await read_all(reply)
        await soon(up.idle())
        await asking.close()
        gc.collect()


# --- out of reach ----------------------------------------------------------------------------------


@asynchronous
async def test_a_refused_connection_is_unavailable_and_names_host_and_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with provider() as asking:
        with pytest.raises(Unavailable, match=rf"Cannot reach 127\.0\.0\.1:{port}: Connection refused"):
            await asking.open(route(base_url=f"http://127.0.0.1:{port}/v1"), inference())


@asynchronous
async def test_a_host_that_does_not_take_the_connection_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as first, socket.socket() as second:
        for waiting in (first, second):  # they fill the queue, so that the next one gets no answer
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        to = route(base_url=f"http://127.0.0.1:{full.getsockname()[1]}/v1", timeouts=Timeouts(connect=0.1))
        async with provider() as asking:
            with pytest.raises(Unavailable, match=r"no connection within 0\.1 s"):
                await asking.open(to, inference())


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"", Unavailable),
        (b"HTTP/1.1 200 OK\r\nContent-", Unavailable),
        (b"SSH-2.0-OpenSSH\r\n", ModelError),
        (CHUNKED + b"zz\r\n", ModelError),
        (CHUNKED + b"5\r\nda", ModelError),
    ],
    ids=["closes", "closes in the headers", "other protocol", "broken chunk", "half a chunk"],
)
@asynchronous
async def test_a_server_that_does_not_speak_http_is_told(
    said: bytes, expected: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}]")
        writer.write(said)
        writer.close()

    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, provider() as asking:
        with pytest.raises(expected) as caught:
            await asking.open(route(base_url=f"http://127.0.0.1:{port}/v1", api_key_env="UPSTREAM_KEY"), inference())
        assert KEY not in "".join(traceback.format_exception(caught.value))
        assert KEY not in repr(caught.value.__cause__)


@asynchronous
async def test_https_to_a_server_that_speaks_http_is_unavailable() -> None:
    async with Upstream() as up, provider() as asking:
        with pytest.raises(Unavailable, match="TLS"):
            await asking.open(route(base_url=up.base_url.replace("http:", "https:")), inference())


@asynchronous
async def test_a_name_that_does_not_resolve_is_unavailable() -> None:
    async with provider() as asking:
        with pytest.raises(Unavailable, match=r"nowhere\.invalid:80"):
            await asking.open(route(base_url="http://nowhere.invalid/v1"), inference())
