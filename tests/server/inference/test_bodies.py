"""Bodies as they come over the wire, good and bad. None that is refused reaches a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from server.handlers import base
from tests.async_tests import async_test
from tests.raw_http import RawConnection, json_body, raw_connection, request_head
from tests.running_server import RunningServer, running_server, scripted_model, spin_until
from tests.server.checks import check_error

CHUNKED = request_head(Transfer_Encoding="chunked", Content_Type="application/json")


@asynccontextmanager
async def server_and_connection(folder: Path, *flags: str) -> AsyncIterator[tuple[RunningServer, RawConnection]]:
    async with (
        running_server(folder, *flags, models={"echo": scripted_model("echo")}) as server,
        raw_connection(server) as connection,
    ):
        yield server, connection


async def check_still_serving(server: RunningServer, connection: RawConnection | None = None) -> None:
    """No model was called so far, and the next valid request is answered, on `connection` or on a new one."""
    assert server.scripted.calls == 0
    if connection is None:
        async with raw_connection(server) as other:
            await check_still_serving(server, other)
    else:
        assert (await connection.send_request(json_body())).text == "hello"


INVALID_BODIES = {
    "empty": b"",
    "truncated": json_body()[:-3],
    "trailing": json_body() + b"x",
    "no JSON": b"text=hello",
    "nested": b"[" * 10_000,
    "nested in a field": b'{"text":' * 10_000 + b"1" + b"}" * 10_000,
    "NaN": b'{"text":"a","temperature":NaN}',
    "Infinity": b'{"text":"a","temperature":-Infinity}',
    "1e999": b'{"text":"a","temperature":1e999}',
    "not UTF-8": b'{"text":"\xff\xfe"}',
    "UTF-16": '{"text":"a"}'.encode("utf-16"),
    "lone surrogate": b'{"text":"\\ud800"}',
    "a list": b"[]",
    "a string": b'"hello"',
    "null": b"null",
    "control character": b'{"text":"\x01"}',
}


@pytest.mark.parametrize("body", INVALID_BODIES.values(), ids=INVALID_BODIES.keys())
@async_test
async def test_body_invalid_is_400_and_connection_stays_open(tmp_path: Path, body: bytes) -> None:
    async with server_and_connection(tmp_path) as (server, connection):
        error_body = check_error(await connection.send_request(body), 400, "invalid_request")
        assert error_body["request"] is None
        await check_still_serving(server, connection)


@async_test
async def test_body_over_limit_by_one_byte_is_413(tmp_path: Path) -> None:
    async with server_and_connection(tmp_path, "--max-body", "1000") as (server, connection):
        check_error(await connection.send_request(json_body().ljust(1001)), 413, "too_large", "1,000 bytes")
        await check_still_serving(server, connection)
        assert (await connection.send_request(json_body().ljust(1000))).status == 200


@async_test
async def test_body_chunked_over_limit_is_413(tmp_path: Path) -> None:
    async with server_and_connection(tmp_path, "--max-body", "1000") as (server, connection):
        await connection.send(CHUNKED + b"3e9\r\n" + bytes(1001) + b"\r\n0\r\n\r\n")
        check_error(await connection.read_response(), 413, "too_large")
        await check_still_serving(server, connection)
        await connection.send(CHUNKED + b"3e8\r\n" + json_body().ljust(1000) + b"\r\n0\r\n\r\n")
        assert (await connection.read_response()).status == 200


@async_test
async def test_body_in_small_pieces_is_joined(tmp_path: Path) -> None:
    async with server_and_connection(tmp_path) as (_server, connection):
        await connection.send(CHUNKED)
        for byte in json_body():
            await connection.send(b"1\r\n" + bytes([byte]) + b"\r\n")
        await connection.send(b"0\r\n\r\n")
        assert (await connection.read_response()).text == "hello"


@pytest.mark.parametrize("chunked", [False, True])
@async_test
async def test_body_of_200_megabytes_is_discarded_and_413(tmp_path: Path, chunked: bool) -> None:
    async with server_and_connection(tmp_path) as (server, connection):
        await connection.send(CHUNKED if chunked else request_head(length=200_000_000))
        block = b"f4240\r\n" + bytes(1_000_000) + b"\r\n" if chunked else bytes(1_000_000)
        for _ in range(200):
            await connection.send(block)
        await connection.send(b"0\r\n\r\n" if chunked else b"")
        check_error(await connection.read_response(), 413, "too_large", "67,108,864")
        await check_still_serving(server, connection)


async def send_endless_body(connection: RawConnection) -> None:
    while True:
        await connection.send(bytes(1_000_000))


@async_test
async def test_body_discarded_bytes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_DISCARDED", 1_000_000)
    async with server_and_connection(tmp_path, "--max-body", "1000") as (server, connection):
        await connection.send(request_head(length=10**12))
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(send_endless_body(connection), 5)
        await check_still_serving(server)


@pytest.mark.parametrize("start", [request_head(length=1000) + b'{"te', CHUNKED + b'4\r\n{"te\r\n'])
@async_test
async def test_body_too_slow_is_408(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes) -> None:
    monkeypatch.setattr(base, "BODY_RATE_SECONDS", 0.05)
    async with server_and_connection(tmp_path) as (server, connection):
        await connection.send(start)
        check_error(await connection.read_response(), 408, "request_timeout", "too slowly")
        assert await connection.wait_closed() == b""
        await check_still_serving(server)
        await server.wait_until_idle()


@async_test
async def test_body_large_and_slow_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "BODY_RATE_SECONDS", 0.05)
    monkeypatch.setattr(base, "BODY_RATE_BYTES", 1)
    body = json_body().ljust(2000)
    async with server_and_connection(tmp_path) as (_server, connection):
        await connection.send(request_head(length=2000))
        for at in range(0, 2000, 500):
            await connection.send(body[at : at + 500])
            await asyncio.sleep(0.03)  # the time that it takes is what this is about
        assert (await connection.read_response()).status == 200


@async_test
async def test_body_disconnect_midway_releases_everything(tmp_path: Path) -> None:
    async with server_and_connection(tmp_path) as (server, connection):
        before = len(asyncio.all_tasks())
        async with raw_connection(server) as other:
            await other.send(request_head(length=1000, Expect="100-continue") + b'{"te')
            assert (await other.read_response()).status == 100
        await server.wait_until_idle()
        await spin_until(lambda: len(asyncio.all_tasks()) <= before)
        await check_still_serving(server, connection)


@pytest.mark.parametrize("length", ["ten", "-1", "1.5", "5, 6", "0x10", "+5", "9" * 30])
@async_test
async def test_body_invalid_content_length_is_rejected(tmp_path: Path, length: str) -> None:
    async with server_and_connection(tmp_path) as (server, connection):
        await connection.send(
            request_head(length=0).replace(b"Content-Length: 0", f"Content-Length: {length}".encode())
        )
        if length.isdigit():
            connection.writer.write_eof()
        received = await connection.wait_closed()
        assert received == b"" or received.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))
        await check_still_serving(server)


@async_test
async def test_body_content_length_with_chunked_is_rejected(tmp_path: Path) -> None:
    async with server_and_connection(tmp_path) as (server, connection):
        await connection.send(request_head(length=5, Transfer_Encoding="chunked") + b"0\r\n\r\n")
        assert (await connection.wait_closed()).startswith(b"HTTP/1.1 400")
        await check_still_serving(server)


@async_test
async def test_body_invalid_chunk_size_closes_connection(tmp_path: Path) -> None:
    async with server_and_connection(tmp_path) as (server, connection):
        await connection.send(CHUNKED + b"what\r\n")
        received = await connection.wait_closed()
        assert received == b"" or received.startswith(b"HTTP/1.1 400")
        await check_still_serving(server)


@async_test
async def test_body_expect_continue_is_answered(tmp_path: Path) -> None:
    async with server_and_connection(tmp_path) as (_server, connection):
        await connection.send(request_head(length=len(json_body()), Expect="100-continue"))
        assert (await connection.read_response()).status == 100
        await connection.send(json_body())
        assert (await connection.read_response()).text == "hello"


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "*/*"]
)
@async_test
async def test_body_of_other_content_type_is_415(tmp_path: Path, content_type: str) -> None:
    async with server_and_connection(tmp_path) as (server, connection):
        answer = await connection.send_request(json_body(), Content_Type=content_type)
        check_error(answer, 415, "unsupported_media_type", "application/json", "application/msgpack")
        await check_still_serving(server, connection)


@async_test
async def test_body_content_type_allows_parameters_and_any_case(tmp_path: Path) -> None:
    async with server_and_connection(tmp_path) as (_server, connection):
        assert (
            await connection.send_request(json_body(), Content_Type="Application/JSON; charset=utf-8")
        ).status == 200


@pytest.mark.parametrize(
    "junk",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n", b"hello\r\n\r\n", b"GET /\r\n\r\n"],
    ids=["TLS", "a word", "HTTP/0.9"],
)
@async_test
async def test_invalid_http_gets_400_or_close(tmp_path: Path, junk: bytes) -> None:
    async with server_and_connection(tmp_path) as (server, connection):
        await connection.send(junk)
        connection.writer.write_eof()
        received = await connection.wait_closed()
        assert received == b"" or received.startswith(b"HTTP/1.1 400")
        await check_still_serving(server)


@async_test
async def test_too_long_headers_get_400_or_close(tmp_path: Path) -> None:
    async with server_and_connection(tmp_path) as (server, connection):
        with suppress(ConnectionError):
            await connection.send(request_head(length=0, X_Long="x" * 100_000))
        received = await connection.wait_closed()
        assert received == b"" or received.startswith(b"HTTP/1.1 4")
        await check_still_serving(server)


@async_test
async def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    async with server_and_connection(tmp_path) as (_server, connection):
        bodies = [json_body(text=f"number {n}") for n in range(5)]
        await connection.send(b"".join(request_head(length=len(body)) + body for body in bodies))
        assert [(await connection.read_response()).text for _ in bodies] == [f"number {n}" for n in range(5)]


@async_test
async def test_body_of_rejected_request_is_read_before_answer(tmp_path: Path) -> None:
    async with server_and_connection(tmp_path) as (server, connection):
        for path, method, status in [("/nowhere", "POST", 404), ("/api/models", "POST", 405)]:
            answer = await connection.send_request(bytes(1_000_000), path, method)
            assert answer.status == status
        await check_still_serving(server, connection)


@async_test
async def test_rejected_request_without_body_keeps_connection(tmp_path: Path) -> None:
    async with server_and_connection(tmp_path) as (server, connection):
        for path, method, status in [("/nowhere", "GET", 404), ("/nowhere", "HEAD", 404), ("/api/nova", "GET", 405)]:
            assert (await connection.send_request(None, path, method)).status == status
        assert (await connection.send_request(None, "/api/models", "GET", Origin="https://evil.example")).status == 403
        await check_still_serving(server, connection)
