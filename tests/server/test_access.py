"""Who may come in: Host, Origin and keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.aio import asynchronous
from tests.rawhttp import body_of, connected, head
from tests.server.checks import check_error
from tests.serving import says, serving

HI = {"text": "hi"}
KEYS = {"FORGELINE_API_KEYS": "first-key, second-key"}
SITE = "https://console.example"


@pytest.mark.parametrize("host", ["localhost", "LocalHost:5000", "127.0.0.1:1", "10.1.2.3", "[::1]:5000", "my.name:80"])
@asynchronous
async def test_its_own_names_addresses_and_listed_names_come_in(tmp_path: Path, host: str) -> None:
    async with serving(tmp_path, "--allow-host", "My.Name, other.name") as server:
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
@asynchronous
async def test_a_rebound_name_is_403_and_reaches_no_model(tmp_path: Path, host: str) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        for path in ["models/m", "stream/m", "multi-inference", "nowhere"]:
            told = check_error(await server.post(f"/api/{path}", HI, Host=host), 403, "forbidden", "--allow-host")
            assert told["request"] is None
        assert server.scripted.calls == 0


@pytest.mark.parametrize("hosts", [b"", b"Host: localhost\r\nHost: rebound.example\r\n", b"Host: a b\r\n"])
@asynchronous
async def test_a_request_without_one_host_is_refused(tmp_path: Path, hosts: bytes) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server, connected(server) as line:
        request = head("/api/models/m", length=len(body_of())) + body_of()
        await line.send(request.replace(b"Host: localhost\r\n", hosts))
        assert (await line.answer()).status in (400, 403)
        assert server.scripted.calls == 0


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "", "http://[", "file://", "http://localhost.evil.example", "localhost"]
)
@asynchronous
async def test_another_sites_page_is_403_and_reaches_no_model(tmp_path: Path, origin: str) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server, connected(server) as line:
        answer = await line.ask(body_of(), "/api/models/m", Origin=origin)
        check_error(answer, 403, "forbidden", "--allow-origin")
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert server.scripted.calls == 0


@asynchronous
async def test_its_own_pages_come_in(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        assert (await server.get("/api/models", Origin=server.url)).status == 200
        refused = await server.get("/api/models", Origin=f"http://localhost:{server.port}")
        check_error(refused, 403, "forbidden")  # another name is another origin


@asynchronous
async def test_a_listed_origin_gets_its_headers_on_errors_too(tmp_path: Path) -> None:
    async with serving(tmp_path, "--allow-origin", SITE, models={"m": says("echo")}) as server:
        good = await server.post("/api/models/m", HI, Origin=SITE)
        missing = await server.post("/api/models/nobody", HI, Origin=SITE)
        nowhere = await server.get("/nowhere", Origin=SITE)
        stream = await server.post("/api/stream/m", HI, Origin=SITE)
        assert [answer.status for answer in (good, missing, nowhere, stream)] == [200, 404, 404, 200]
        for answer in (good, missing, nowhere, stream):
            assert answer.headers["Access-Control-Allow-Origin"] == SITE
            assert answer.headers["Vary"] == "Origin"
            assert "X-Stream-Id" in answer.headers["Access-Control-Expose-Headers"]


@asynchronous
async def test_nobody_else_gets_cors_headers(tmp_path: Path) -> None:
    async with serving(tmp_path, "--allow-origin", SITE) as server:
        for headers in ({}, {"Origin": server.url}, {"Origin": "https://evil.example"}):
            answer = await server.get("/api/models", **headers)
            assert not [name for name in answer.headers if name.startswith("Access-Control")]


@asynchronous
async def test_the_preflight_of_a_listed_origin_needs_no_key(tmp_path: Path) -> None:
    async with serving(tmp_path, "--allow-origin", SITE, environ=KEYS) as server:
        asked = {"Origin": SITE, "Access-Control-Request-Method": "POST"}
        for path in ["/api/models/m", "/api/stream/m", "/api/multi-inference", "/api/models"]:
            answer = await server.request("OPTIONS", path, headers=asked)
            assert (answer.status, answer.content) == (204, b"")
            assert answer.headers["Access-Control-Allow-Origin"] == SITE
            assert "POST" in answer.headers["Access-Control-Allow-Methods"]
            assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        check_error(await server.post("/api/models/m", HI, Origin=SITE), 401, "unauthorized")


@asynchronous
async def test_any_other_preflight_is_403(tmp_path: Path) -> None:
    async with serving(tmp_path, "--allow-origin", SITE) as server:
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
@asynchronous
async def test_any_of_the_keys_comes_in_by_either_header(tmp_path: Path, headers: dict[str, str]) -> None:
    async with serving(tmp_path, environ=KEYS) as server:
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
@asynchronous
async def test_a_missing_or_wrong_key_is_401_and_reaches_no_model(tmp_path: Path, headers: dict[str, str]) -> None:
    async with serving(tmp_path, models={"m": says("echo")}, environ=KEYS) as server:
        for path in ["models/m", "stream/m", "multi-inference", "nowhere", "emd/m"]:
            told = check_error(await server.post(f"/api/{path}", HI, **headers), 401, "unauthorized", "X-API-Key")
            assert "first-key" not in told["error"]
        assert server.scripted.calls == 0


@asynchronous
async def test_keys_come_from_a_file_too(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# people\n\n  in-the-file  \n")
    async with serving(tmp_path, "--api-keys-file", str(keys), environ=KEYS) as server:
        for key in ["in-the-file", "first-key"]:
            assert (await server.get("/api/models", **{"X-API-Key": key})).status == 200
        check_error(await server.get("/api/models", **{"X-API-Key": "# people"}), 401, "unauthorized")


@asynchronous
async def test_a_stream_answers_only_to_the_key_that_made_it(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}, environ=KEYS) as server:
        made = await server.post("/api/stream/m", HI, **{"X-API-Key": "first-key"})
        path = f"/api/streams/{made.headers['X-Stream-Id']}"
        assert (await server.get(path, **{"X-API-Key": "first-key"})).content == made.content
        check_error(await server.get(path, **{"X-API-Key": "second-key"}), 404, "unknown_stream")
        check_error(await server.get(path), 401, "unauthorized")


@asynchronous
async def test_a_key_that_is_added_to_the_file_or_taken_out_counts_at_once(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("old-key")
    async with serving(tmp_path, "--api-keys-file", str(keys)) as server:
        keys.write_text("new-key, of another length")
        while (await server.get("/api/models", **{"X-API-Key": "old-key"})).status == 200:
            pass
        assert (await server.get("/api/models", **{"X-API-Key": "new-key, of another length"})).status == 200
