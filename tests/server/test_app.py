"""Every address: what it is called, which methods it takes, and what every answer has in common."""

from __future__ import annotations

from pathlib import Path

import msgpack
import pytest

from tests.aio import asynchronous
from tests.rawhttp import connected, head
from tests.server.checks import check_error, check_stream, text_of
from tests.serving import says, serving

POSTS = ["/api/claude4", "/api/nova", "/api/models/m", "/api/emd/m", "/api/multi-inference", "/api/stream/m"]
GETS = ["/healthz", "/readyz", "/api/models"]
OTHERS = ["PUT", "PATCH", "DELETE", "HEAD"]


@pytest.mark.parametrize(
    "path", ["/nowhere", "/api", "/api/", "/api/models/", "/api/models/a/b", "/api/stream", "//", "/%00", "/healthz/x"]
)
@asynchronous
async def test_an_unknown_address_is_404_in_json(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server, connected(server) as line:
        for method in ["GET", "POST", "PUT", "DELETE"]:
            check_error(await line.ask(b"{}", path, method), 404, "not_found")
        assert (await line.ask(None, "/healthz", "GET")).status == 200


@pytest.mark.parametrize("path", [*POSTS, *GETS])
@asynchronous
async def test_a_method_that_an_address_does_not_take_is_405_in_json(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server, connected(server) as line:
        for method in [*OTHERS, "GET" if path in POSTS else "POST"]:
            answer = await line.ask(None, path, method)
            assert answer.status == 405
            assert answer.headers["Content-Type"] == "application/json"
            if method != "HEAD":
                check_error(answer, 405, "method_not_allowed")
        assert server.scripted.calls == 0


@pytest.mark.parametrize("method", ["BREW", "TRACE", "PROPFIND", "post"])
@asynchronous
async def test_a_method_that_nobody_knows_is_405_too(tmp_path: Path, method: str) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server, connected(server) as line:
        check_error(await line.ask(None, "/api/models/m", method), 405, "method_not_allowed")
        assert server.scripted.calls == 0


@pytest.mark.parametrize("path", ["/api/models/%ff", "/api/stream/%c3%28", "/api/streams/%ff"])
@asynchronous
async def test_an_address_that_is_no_text_is_400(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server, connected(server) as line:
        check_error(await line.ask(b'{"text":"hi"}', path), 400, "invalid_request")


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
@asynchronous
async def test_an_http_1_0_client_is_answered_and_its_stream_ends_with_its_connection(
    tmp_path: Path, connection: str
) -> None:
    async with serving(tmp_path, models={"m": says("say:Hello there")}) as server, connected(server) as line:
        body = b'{"text":"hi"}'
        asked = head("/api/stream/m", length=len(body), Connection=connection)
        await line.send(asked.replace(b"HTTP/1.1", b"HTTP/1.0") + body)
        assert text_of(check_stream((await line.answer()).events)["m"]) == "Hello there"


@asynchronous
async def test_no_answer_says_what_the_server_is_made_of(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        for path in [*POSTS, *GETS, "/nowhere"]:
            for method in ["GET", "POST", "OPTIONS", "HEAD"]:
                answer = await server.request(method, path, json={"text": "hi"} if method == "POST" else None)
                assert not {"Server", "X-Powered-By"} & answer.headers.keys()
                assert b"ornado" not in answer.content
                assert "X-Request-Id" in answer.headers
                assert answer.headers["X-Content-Type-Options"] == "nosniff"


@asynchronous
async def test_our_own_fault_is_500_and_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:

        def explode(*args: object, **kwargs: object) -> None:
            raise RuntimeError("a secret of the inside")

        monkeypatch.setattr(server.services.streams, "open", explode)
        for path in ["/api/models/m", "/api/stream/m"]:
            told = check_error(await server.post(path, {"text": "hi"}), 500, "internal", "request_id")
            assert "secret" not in str(told)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x91" * 10_000 + b"\xc0",
        msgpack.packb({"text": "a"}) + b"\xc0",
        msgpack.packb({1: "a"}),
        msgpack.packb({"text": msgpack.Timestamp(1)}),
        msgpack.packb({"text": msgpack.ExtType(4, b"x")}),
        msgpack.packb({"text": "a", "frames": [b"no picture"]}),
        b"\x81\xa4text\xa1\xff",
    ],
)
@asynchronous
async def test_messagepack_that_is_no_request_is_400_and_reaches_no_model(tmp_path: Path, body: bytes) -> None:
    kind = "application/msgpack"
    good = msgpack.packb({"text": "hi"})
    async with serving(tmp_path, models={"m": says("echo")}) as server, connected(server) as line:
        for path in ["/api/models/m", "/api/stream/m", "/api/multi-inference"]:
            answer = await line.ask(body, path, Content_Type=kind, Accept=f"*/*, {kind}")
            check_error(answer, 400, "invalid_request")
        assert server.scripted.calls == 0
        assert (await line.ask(good, "/api/models/m", Content_Type=kind)).text == "hi"
