"""Connections of the OpenAI-compatible provider: reused, closed, refused, broken."""

from __future__ import annotations

import asyncio
import gc
import socket
import traceback
from typing import Any

import pytest

from pipeline.errors import ModelError, Unavailable
from pipeline.presets.models import Timeouts
from pipeline.providers.openai import http
from tests.async_tests import async_test, within_deadline
from tests.pipeline.providers.helpers import (
    API_KEY,
    FINAL_PARTS,
    collect_parts,
    make_inference,
    make_target,
    openai_provider,
    read_parts,
    upstream_and_provider,
)
from tests.upstream import Upstream, hanging_response, raw_response, stream_bytes, stream_response

CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("done", [True, False], ids=["[DONE]", "no [DONE]"])
@async_test
async def test_connection_is_reused_after_whole_response(done: bool) -> None:
    async with upstream_and_provider(stream_response(["Hello"], done=done)) as (upstream, provider, target):
        for _ in range(3):
            await collect_parts(provider, target)
            await within_deadline(upstream.wait_until_idle())
        assert upstream.connection_count == 1


@async_test
async def test_connection_that_stays_open_after_done_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LINGER_SECONDS", 0.01)
    async with upstream_and_provider(raw_response([*stream_bytes(["Hello"]), asyncio.Event()])) as (
        upstream,
        provider,
        target,
    ):
        assert await collect_parts(provider, target) == ["Hello", *FINAL_PARTS]
        await within_deadline(upstream.wait_until_idle())
        assert upstream.cancelled == 1


@async_test
async def test_close_response_ends_upstream_request() -> None:
    async with upstream_and_provider(stream_response(["Hello", asyncio.Event()])) as (upstream, provider, target):
        response = await provider.open(target, make_inference())
        await response.aclose()
        await within_deadline(upstream.wait_until_idle())
        assert upstream.cancelled == 1


@async_test
async def test_cancel_in_mid_stream_ends_upstream_request() -> None:
    async with upstream_and_provider(stream_response(["Hello", asyncio.Event()])) as (upstream, provider, target):
        reading = asyncio.create_task(collect_parts(provider, target))
        await within_deadline(upstream.wait_for_requests())
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await within_deadline(upstream.wait_until_idle())


@pytest.mark.parametrize(
    "make_responder",
    [hanging_response, lambda: raw_response([b": ping\n", asyncio.Event()])],
    ids=["no status", "no chunk"],
)
@async_test
async def test_cancel_open_ends_upstream_request(make_responder: Any) -> None:
    async with upstream_and_provider(make_responder()) as (upstream, provider, target):
        opening = asyncio.create_task(provider.open(target, make_inference()))
        await within_deadline(upstream.wait_for_requests())
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        await within_deadline(upstream.wait_until_idle())
        assert upstream.cancelled == 1


@async_test
async def test_many_concurrent_streams_do_not_wait_for_connections() -> None:
    gate = asyncio.Event()
    async with upstream_and_provider(stream_response(["Hello", gate, "!"])) as (upstream, provider, target):
        responses = await asyncio.gather(*(provider.open(target, make_inference()) for _ in range(150)))
        assert upstream.in_flight == 150
        gate.set()
        assert [await read_parts(response) for response in responses] == [["Hello", "!", *FINAL_PARTS]] * 150


@async_test
async def test_session_has_no_total_or_read_timeout() -> None:
    async with upstream_and_provider() as (_, provider, _to):
        await provider.start()
        timeout = provider._client.session().timeout
        assert (timeout.total, timeout.sock_read) == (None, None)


@async_test
async def test_close_provider_ends_open_responses() -> None:
    async with upstream_and_provider(stream_response(["Hello", asyncio.Event()])) as (upstream, provider, target):
        response = await provider.open(target, make_inference())
        await provider.close()
        with pytest.raises(ModelError):
            await read_parts(response)
        await within_deadline(upstream.wait_until_idle())
        await provider.close()
        gc.collect()


# --- out of reach ----------------------------------------------------------------------------------


@async_test
async def test_connection_refused_is_unavailable_with_host_and_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    async with openai_provider() as provider:
        with pytest.raises(Unavailable, match=rf"Cannot reach 127\.0\.0\.1:{port}: Connection refused"):
            await provider.open(make_target(base_url=f"http://127.0.0.1:{port}/v1"), make_inference())


@async_test
async def test_connect_timeout_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as first, socket.socket() as second:
        for client in (first, second):  # they fill the queue, so that the next connect hangs
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        target = make_target(base_url=f"http://127.0.0.1:{full.getsockname()[1]}/v1", timeouts=Timeouts(connect=0.1))
        async with openai_provider() as provider:
            with pytest.raises(Unavailable, match=r"no connection within 0\.1 s"):
                await provider.open(target, make_inference())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", Unavailable),
        (b"HTTP/1.1 200 OK\r\nContent-", Unavailable),
        (b"SSH-2.0-OpenSSH\r\n", ModelError),
        (CHUNKED_HEAD + b"zz\r\n", ModelError),
        (CHUNKED_HEAD + b"5\r\nda", ModelError),
    ],
    ids=["closes", "closes in the headers", "other protocol", "broken chunk", "half a chunk"],
)
@async_test
async def test_server_that_does_not_speak_http_is_an_error_without_key(
    data: bytes, expected: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}]")
        writer.write(data)
        writer.close()

    monkeypatch.setenv("UPSTREAM_KEY", API_KEY)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, openai_provider() as provider:
        with pytest.raises(expected) as caught:
            await provider.open(
                make_target(base_url=f"http://127.0.0.1:{port}/v1", api_key_env="UPSTREAM_KEY"), make_inference()
            )
        assert API_KEY not in "".join(traceback.format_exception(caught.value))
        assert API_KEY not in repr(caught.value.__cause__)


@async_test
async def test_https_to_plain_http_server_is_unavailable() -> None:
    async with Upstream() as upstream, openai_provider() as provider:
        with pytest.raises(Unavailable, match="TLS"):
            await provider.open(make_target(base_url=upstream.base_url.replace("http:", "https:")), make_inference())


@async_test
async def test_unresolvable_host_is_unavailable() -> None:
    async with openai_provider() as provider:
        with pytest.raises(Unavailable, match=r"nowhere\.invalid:80"):
            await provider.open(make_target(base_url="http://nowhere.invalid/v1"), make_inference())
