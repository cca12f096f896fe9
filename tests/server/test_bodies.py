"""Bodies as they come over the wire, good and bad. None that is refused reaches a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from server.handlers import base
from tests.aio import asynchronous
from tests.rawhttp import Line, body_of, connected, head
from tests.server.checks import check_error
from tests.serving import Server, says, serving, until

CHUNKED = head(Transfer_Encoding="chunked", Content_Type="application/json")


@asynccontextmanager
async def on_the_line(folder: Path, *flags: str) -> AsyncIterator[tuple[Server, Line]]:
    async with serving(folder, *flags, models={"echo": says("echo")}) as server, connected(server) as line:
        yield server, line


async def check_unharmed(server: Server, line: Line | None = None) -> None:
    """No model was asked by what came before, and the next good request is answered: on `line`, or on a new one."""
    assert server.scripted.calls == 0
    if line is None:
        async with connected(server) as other:
            await check_unharmed(server, other)
    else:
        assert (await line.ask(body_of())).text == "hello"


BAD = {
    "empty": b"",
    "truncated": body_of()[:-3],
    "trailing": body_of() + b"x",
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


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
@asynchronous
async def test_a_body_that_cannot_be_read_is_400_and_the_connection_lives(tmp_path: Path, body: bytes) -> None:
    async with on_the_line(tmp_path) as (server, line):
        told = check_error(await line.ask(body), 400, "invalid_request")
        assert told["request"] is None
        await check_unharmed(server, line)


@asynchronous
async def test_a_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_413(tmp_path: Path) -> None:
    async with on_the_line(tmp_path, "--max-body", "1000") as (server, line):
        check_error(await line.ask(body_of().ljust(1001)), 413, "too_large", "1,000 bytes")
        await check_unharmed(server, line)
        assert (await line.ask(body_of().ljust(1000))).status == 200


@asynchronous
async def test_chunked_bodies_are_measured_as_they_come(tmp_path: Path) -> None:
    async with on_the_line(tmp_path, "--max-body", "1000") as (server, line):
        await line.send(CHUNKED + b"3e9\r\n" + bytes(1001) + b"\r\n0\r\n\r\n")
        check_error(await line.answer(), 413, "too_large")
        await check_unharmed(server, line)
        await line.send(CHUNKED + b"3e8\r\n" + body_of().ljust(1000) + b"\r\n0\r\n\r\n")
        assert (await line.answer()).status == 200


@asynchronous
async def test_a_body_in_many_small_pieces_is_one_body(tmp_path: Path) -> None:
    async with on_the_line(tmp_path) as (_server, line):
        await line.send(CHUNKED)
        for byte in body_of():
            await line.send(b"1\r\n" + bytes([byte]) + b"\r\n")
        await line.send(b"0\r\n\r\n")
        assert (await line.answer()).text == "hello"


@pytest.mark.parametrize("chunked", [False, True])
@asynchronous
async def test_a_client_that_reads_only_after_sending_200_megabytes_sees_its_413(tmp_path: Path, chunked: bool) -> None:
    async with on_the_line(tmp_path) as (server, line):
        await line.send(CHUNKED if chunked else head(length=200_000_000))
        block = b"f4240\r\n" + bytes(1_000_000) + b"\r\n" if chunked else bytes(1_000_000)
        for _ in range(200):
            await line.send(block)
        await line.send(b"0\r\n\r\n" if chunked else b"")
        check_error(await line.answer(), 413, "too_large", "67,108,864")
        await check_unharmed(server, line)


async def send_without_end(line: Line) -> None:
    while True:
        await line.send(bytes(1_000_000))


@asynchronous
async def test_what_is_thrown_away_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_THROWN_AWAY", 1_000_000)
    async with on_the_line(tmp_path, "--max-body", "1000") as (server, line):
        await line.send(head(length=10**12))
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(send_without_end(line), 5)
        await check_unharmed(server)


@pytest.mark.parametrize("start", [head(length=1000) + b'{"te', CHUNKED + b'4\r\n{"te\r\n'])
@asynchronous
async def test_a_body_that_trickles_is_408(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes) -> None:
    monkeypatch.setattr(base, "BODY_SECONDS", 0.05)
    async with on_the_line(tmp_path) as (server, line):
        await line.send(start)
        check_error(await line.answer(), 408, "request_timeout", "too slowly")
        assert await line.closed() == b""
        await check_unharmed(server)
        await server.ended()


@asynchronous
async def test_a_large_body_may_take_its_time_as_long_as_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "BODY_SECONDS", 0.05)
    monkeypatch.setattr(base, "BODY_BYTES", 1)
    body = body_of().ljust(2000)
    async with on_the_line(tmp_path) as (_server, line):
        await line.send(head(length=2000))
        for at in range(0, 2000, 500):
            await line.send(body[at : at + 500])
            await asyncio.sleep(0.03)  # the time that it takes is what this is about
        assert (await line.answer()).status == 200


@asynchronous
async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_nothing_behind(tmp_path: Path) -> None:
    async with on_the_line(tmp_path) as (server, line):
        before = len(asyncio.all_tasks())
        async with connected(server) as other:
            await other.send(head(length=1000, Expect="100-continue") + b'{"te')
            assert (await other.answer()).status == 100
        await server.ended()
        await until(lambda: len(asyncio.all_tasks()) <= before)
        await check_unharmed(server, line)


@pytest.mark.parametrize("length", ["ten", "-1", "1.5", "5, 6", "0x10", "+5", "9" * 30])
@asynchronous
async def test_a_content_length_that_is_no_length_is_refused(tmp_path: Path, length: str) -> None:
    async with on_the_line(tmp_path) as (server, line):
        await line.send(head(length=0).replace(b"Content-Length: 0", f"Content-Length: {length}".encode()))
        if length.isdigit():
            line.writer.write_eof()
        said = await line.closed()
        assert said == b"" or said.startswith((b"HTTP/1.1 400", b"HTTP/1.1 413"))
        await check_unharmed(server)


@asynchronous
async def test_two_ways_to_say_the_length_are_refused(tmp_path: Path) -> None:
    async with on_the_line(tmp_path) as (server, line):
        await line.send(head(length=5, Transfer_Encoding="chunked") + b"0\r\n\r\n")
        assert (await line.closed()).startswith(b"HTTP/1.1 400")
        await check_unharmed(server)


@asynchronous
async def test_a_chunk_whose_size_is_no_number_ends_the_connection(tmp_path: Path) -> None:
    async with on_the_line(tmp_path) as (server, line):
        await line.send(CHUNKED + b"what\r\n")
        said = await line.closed()
        assert said == b"" or said.startswith(b"HTTP/1.1 400")
        await check_unharmed(server)


@asynchronous
async def test_a_client_that_asks_whether_to_go_on_is_told_to(tmp_path: Path) -> None:
    async with on_the_line(tmp_path) as (_server, line):
        await line.send(head(length=len(body_of()), Expect="100-continue"))
        assert (await line.answer()).status == 100
        await line.send(body_of())
        assert (await line.answer()).text == "hello"


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "*/*"]
)
@asynchronous
async def test_any_other_content_type_is_415(tmp_path: Path, content_type: str) -> None:
    async with on_the_line(tmp_path) as (server, line):
        answer = await line.ask(body_of(), Content_Type=content_type)
        check_error(answer, 415, "unsupported_media_type", "application/json", "application/msgpack")
        await check_unharmed(server, line)


@asynchronous
async def test_the_content_type_may_have_parameters_and_any_case(tmp_path: Path) -> None:
    async with on_the_line(tmp_path) as (_server, line):
        assert (await line.ask(body_of(), Content_Type="Application/JSON; charset=utf-8")).status == 200


@pytest.mark.parametrize(
    "junk",
    [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100) + b"\r\n\r\n", b"hello\r\n\r\n", b"GET /\r\n\r\n"],
    ids=["TLS", "a word", "HTTP/0.9"],
)
@asynchronous
async def test_bytes_that_are_not_http_get_a_bare_400_or_a_close(tmp_path: Path, junk: bytes) -> None:
    async with on_the_line(tmp_path) as (server, line):
        await line.send(junk)
        line.writer.write_eof()
        said = await line.closed()
        assert said == b"" or said.startswith(b"HTTP/1.1 400")
        await check_unharmed(server)


@asynchronous
async def test_headers_that_are_too_long_get_a_bare_400_or_a_close(tmp_path: Path) -> None:
    async with on_the_line(tmp_path) as (server, line):
        with suppress(ConnectionError):
            await line.send(head(length=0, X_Long="x" * 100_000))
        said = await line.closed()
        assert said == b"" or said.startswith(b"HTTP/1.1 4")
        await check_unharmed(server)


@asynchronous
async def test_requests_that_come_at_once_are_answered_in_their_order(tmp_path: Path) -> None:
    async with on_the_line(tmp_path) as (_server, line):
        bodies = [body_of(text=f"number {n}") for n in range(5)]
        await line.send(b"".join(head(length=len(body)) + body for body in bodies))
        assert [(await line.answer()).text for _ in bodies] == [f"number {n}" for n in range(5)]


@asynchronous
async def test_a_refused_request_is_answered_when_its_body_is_read(tmp_path: Path) -> None:
    async with on_the_line(tmp_path) as (server, line):
        for path, method, status in [("/nowhere", "POST", 404), ("/api/models", "POST", 405)]:
            answer = await line.ask(bytes(1_000_000), path, method)
            assert answer.status == status
        await check_unharmed(server, line)


@asynchronous
async def test_a_refused_request_without_a_body_leaves_the_connection_alive(tmp_path: Path) -> None:
    async with on_the_line(tmp_path) as (server, line):
        for path, method, status in [("/nowhere", "GET", 404), ("/nowhere", "HEAD", 404), ("/api/nova", "GET", 405)]:
            assert (await line.ask(None, path, method)).status == status
        assert (await line.ask(None, "/api/models", "GET", Origin="https://evil.example")).status == 403
        await check_unharmed(server, line)
