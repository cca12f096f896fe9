"""Every address: what it is called, which methods it takes, and what every answer has in common."""

from __future__ import annotations

from pathlib import Path

import msgpack
import pytest

from tests.async_tests import async_test
from tests.raw_http import raw_connection, request_head
from tests.running_server import running_server, scripted_model
from tests.server.checks import check_error, check_stream, text_of

POSTS = ["/api/claude4", "/api/nova", "/api/models/m", "/api/emd/m", "/api/multi-inference", "/api/stream/m"]
GETS = ["/healthz", "/readyz", "/api/models"]
HEADS = ["/healthz", "/readyz"]
OTHERS = ["PUT", "PATCH", "DELETE", "HEAD"]


@pytest.mark.parametrize(
    "path", ["/nowhere", "/api", "/api/", "/api/models/", "/api/models/a/b", "/api/stream", "//", "/%00", "/healthz/x"]
)
@async_test
async def test_unknown_path_is_404_json(tmp_path: Path, path: str) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server, raw_connection(server) as line:
        for method in ["GET", "POST", "PUT", "DELETE"]:
            check_error(await line.send_request(b"{}", path, method), 404, "not_found")
        assert (await line.send_request(None, "/healthz", "GET")).status == 200


@pytest.mark.parametrize("path", [*POSTS, *GETS])
@async_test
async def test_unsupported_method_is_405_json(tmp_path: Path, path: str) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server, raw_connection(server) as line:
        for method in [*OTHERS, "GET" if path in POSTS else "POST"]:
            if method == "HEAD" and path in HEADS:
                continue
            answer = await line.send_request(None, path, method)
            assert answer.status == 405
            assert answer.headers["Content-Type"] == "application/json"
            if method != "HEAD":
                check_error(answer, 405, "method_not_allowed")
        assert server.scripted.calls == 0


@pytest.mark.parametrize("method", ["BREW", "TRACE", "PROPFIND", "post"])
@async_test
async def test_unknown_method_is_405(tmp_path: Path, method: str) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server, raw_connection(server) as line:
        check_error(await line.send_request(None, "/api/models/m", method), 405, "method_not_allowed")
        assert server.scripted.calls == 0


@pytest.mark.parametrize("path", ["/api/models/%ff", "/api/stream/%c3%28", "/api/streams/%ff"])
@async_test
async def test_path_without_utf8_is_400(tmp_path: Path, path: str) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server, raw_connection(server) as line:
        check_error(await line.send_request(b'{"text":"hi"}', path), 400, "invalid_request")


@pytest.mark.parametrize("connection", ["close", "keep-alive"])
@async_test
async def test_http_1_0_stream_ends_with_connection(tmp_path: Path, connection: str) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("say:Hello there")}) as server,
        raw_connection(server) as line,
    ):
        body = b'{"text":"hi"}'
        request_bytes = request_head("/api/stream/m", length=len(body), Connection=connection)
        await line.send(request_bytes.replace(b"HTTP/1.1", b"HTTP/1.0") + body)
        assert text_of(check_stream((await line.read_response()).events)["m"]) == "Hello there"


@async_test
async def test_server_header_is_never_sent(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        for path in [*POSTS, *GETS, "/nowhere"]:
            for method in ["GET", "POST", "OPTIONS", "HEAD"]:
                answer = await server.request(method, path, json={"text": "hi"} if method == "POST" else None)
                assert not {"Server", "X-Powered-By"} & answer.headers.keys()
                assert b"ornado" not in answer.content
                assert "X-Request-Id" in answer.headers
                assert answer.headers["X-Content-Type-Options"] == "nosniff"


@async_test
async def test_internal_error_is_500_without_details(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:

        def explode(*args: object, **kwargs: object) -> None:
            raise RuntimeError("a secret of the inside")

        monkeypatch.setattr(server.services.streams, "open", explode)
        for path in ["/api/models/m", "/api/stream/m"]:
            error_body = check_error(await server.post(path, {"text": "hi"}), 500, "internal", "request_id")
            assert "secret" not in str(error_body)


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
@async_test
async def test_invalid_messagepack_is_400_and_reaches_no_model(tmp_path: Path, body: bytes) -> None:
    kind = "application/msgpack"
    good = msgpack.packb({"text": "hi"})
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server, raw_connection(server) as line:
        for path in ["/api/models/m", "/api/stream/m", "/api/multi-inference"]:
            answer = await line.send_request(body, path, Content_Type=kind, Accept=f"*/*, {kind}")
            check_error(answer, 400, "invalid_request")
        assert server.scripted.calls == 0
        assert (await line.send_request(good, "/api/models/m", Content_Type=kind)).text == "hi"
