"""Who may come in: Host, Origin and keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.async_tests import async_test
from tests.raw_http import json_body, raw_connection, request_head
from tests.running_server import running_server, scripted_model
from tests.server.checks import check_error

HI = {"text": "hi"}
KEYS = {"FORGELINE_API_KEYS": "first-key, second-key"}
SITE = "https://console.example"


@pytest.mark.parametrize("host", ["localhost", "LocalHost:5000", "127.0.0.1:1", "10.1.2.3", "[::1]:5000", "my.name:80"])
@async_test
async def test_host_local_or_listed_is_accepted(tmp_path: Path, host: str) -> None:
    async with running_server(tmp_path, "--allow-host", "My.Name, other.name") as server:
        assert (await server.get("/api/models", Host=host)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "rebound.example",
        "localhost.rebound.example",
        "127.0.0.1.nip.io:80",
        "localhost.",
        "1",
        "localhost:evil",
        "[::1]rebound.example",
        "[::1",
        "localhost:80:80",
    ],
)
@async_test
async def test_host_unknown_is_403_and_reaches_no_model(tmp_path: Path, host: str) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        for path in ["models/m", "stream/m", "multi-inference", "nowhere"]:
            body = check_error(await server.post(f"/api/{path}", HI, Host=host), 403, "forbidden", "--allow-host")
            assert body["request"] is None
        assert server.scripted.calls == 0


@pytest.mark.parametrize("hosts", [b"", b"Host: localhost\r\nHost: rebound.example\r\n", b"Host: a b\r\n"])
@async_test
async def test_host_missing_or_ambiguous_is_rejected(tmp_path: Path, hosts: bytes) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("echo")}) as server,
        raw_connection(server) as connection,
    ):
        request = request_head("/api/models/m", length=len(json_body())) + json_body()
        await connection.send(request.replace(b"Host: localhost\r\n", hosts))
        assert (await connection.read_response()).status in (400, 403)
        assert server.scripted.calls == 0


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "", "http://[", "file://", "http://localhost.evil.example", "localhost"]
)
@async_test
async def test_origin_unknown_is_403_and_reaches_no_model(tmp_path: Path, origin: str) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("echo")}) as server,
        raw_connection(server) as connection,
    ):
        answer = await connection.send_request(json_body(), "/api/models/m", Origin=origin)
        check_error(answer, 403, "forbidden", "--allow-origin")
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert server.scripted.calls == 0


@async_test
async def test_origin_of_server_itself_is_accepted(tmp_path: Path) -> None:
    async with running_server(tmp_path) as server:
        assert (await server.get("/api/models", Origin=server.url)).status == 200
        refused = await server.get("/api/models", Origin=f"http://localhost:{server.port}")
        check_error(refused, 403, "forbidden")  # another name is another origin


@async_test
async def test_origin_listed_gets_cors_headers_on_errors_too(tmp_path: Path) -> None:
    async with running_server(tmp_path, "--allow-origin", SITE, models={"m": scripted_model("echo")}) as server:
        good = await server.post("/api/models/m", HI, Origin=SITE)
        missing = await server.post("/api/models/nobody", HI, Origin=SITE)
        nowhere = await server.get("/nowhere", Origin=SITE)
        stream = await server.post("/api/stream/m", HI, Origin=SITE)
        assert [answer.status for answer in (good, missing, nowhere, stream)] == [200, 404, 404, 200]
        for answer in (good, missing, nowhere, stream):
            assert answer.headers["Access-Control-Allow-Origin"] == SITE
            assert answer.headers["Vary"] == "Origin"
            assert "X-Stream-Id" in answer.headers["Access-Control-Expose-Headers"]


@async_test
async def test_origin_unlisted_gets_no_cors_headers(tmp_path: Path) -> None:
    async with running_server(tmp_path, "--allow-origin", SITE) as server:
        for headers in ({}, {"Origin": server.url}, {"Origin": "https://evil.example"}):
            answer = await server.get("/api/models", **headers)
            assert not [name for name in answer.headers if name.startswith("Access-Control")]


@async_test
async def test_preflight_of_listed_origin_requires_no_key(tmp_path: Path) -> None:
    async with running_server(tmp_path, "--allow-origin", SITE, environ=KEYS) as server:
        preflight = {"Origin": SITE, "Access-Control-Request-Method": "POST"}
        for path in ["/api/models/m", "/api/stream/m", "/api/multi-inference", "/api/models"]:
            answer = await server.request("OPTIONS", path, headers=preflight)
            assert (answer.status, answer.content) == (204, b"")
            assert answer.headers["Access-Control-Allow-Origin"] == SITE
            assert "POST" in answer.headers["Access-Control-Allow-Methods"]
            assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        check_error(await server.post("/api/models/m", HI, Origin=SITE), 401, "unauthorized")


@async_test
async def test_preflight_of_unlisted_origin_is_403(tmp_path: Path) -> None:
    async with running_server(tmp_path, "--allow-origin", SITE) as server:
        for headers in ({"Origin": "https://evil.example"}, {}, {"Origin": "null"}):
            check_error(await server.request("OPTIONS", "/api/models/m", headers=headers), 403, "forbidden")


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer first-key"},
        {"Authorization": "bearer  second-key"},
        {"X-API-Key": "second-key"},
        {"Authorization": "Basic abc", "X-API-Key": "first-key"},
    ],
)
@async_test
async def test_api_key_is_accepted_in_either_header(tmp_path: Path, headers: dict[str, str]) -> None:
    async with running_server(tmp_path, environ=KEYS) as server:
        assert (await server.get("/api/models", **headers)).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer first-ke"},
        {"Authorization": "first-key"},
        {"Authorization": "Basic first-key"},
        {"X-API-Key": ""},
        {"X-API-Key": "first-key, second-key"},
        {"X-API-Key": "kéy"},
    ],
)
@async_test
async def test_api_key_missing_or_wrong_is_401_and_reaches_no_model(tmp_path: Path, headers: dict[str, str]) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}, environ=KEYS) as server:
        for path in ["models/m", "stream/m", "multi-inference", "nowhere", "emd/m"]:
            body = check_error(await server.post(f"/api/{path}", HI, **headers), 401, "unauthorized", "X-API-Key")
            assert "first-key" not in body["error"]
        assert server.scripted.calls == 0


@async_test
async def test_api_key_from_file_is_accepted(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# people\n\n  in-the-file  \n")
    async with running_server(tmp_path, "--api-keys-file", str(keys), environ=KEYS) as server:
        for key in ["in-the-file", "first-key"]:
            assert (await server.get("/api/models", **{"X-API-Key": key})).status == 200
        check_error(await server.get("/api/models", **{"X-API-Key": "# people"}), 401, "unauthorized")


@async_test
async def test_stream_is_readable_only_by_its_api_key(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}, environ=KEYS) as server:
        made = await server.post("/api/stream/m", HI, **{"X-API-Key": "first-key"})
        path = f"/api/streams/{made.headers['X-Stream-Id']}"
        assert (await server.get(path, **{"X-API-Key": "first-key"})).content == made.content
        check_error(await server.get(path, **{"X-API-Key": "second-key"}), 404, "unknown_stream")
        check_error(await server.get(path), 401, "unauthorized")


@async_test
async def test_api_keys_file_edit_takes_effect(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("old-key")
    async with running_server(tmp_path, "--api-keys-file", str(keys)) as server:
        keys.write_text("new-key, of another length")
        while (await server.get("/api/models", **{"X-API-Key": "old-key"})).status == 200:
            pass
        assert (await server.get("/api/models", **{"X-API-Key": "new-key, of another length"})).status == 200
