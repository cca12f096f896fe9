"""--api-keys-file: a key that is added or removed counts while the server runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from server.config import parse_options
from server.lifecycle import StartupError, running
from tests.async_tests import async_test, wait_until
from tests.running_server import RunningServer, running_server, scripted_model
from tests.server.checks import check_error

MODELS = {"m": scripted_model("say:Hello; hang")}


async def get_status(server: RunningServer, key: str) -> int:
    return (await server.get("/api/models", **{"X-API-Key": key})).status


async def wait_for_status(server: RunningServer, key: str, status: int) -> None:
    while await get_status(server, key) != status:
        pass


def save_by_rename(path: Path, content: str) -> None:
    path.with_suffix(".new").write_text(content)
    path.with_suffix(".new").replace(path)


def save_in_place(path: Path, content: str) -> None:
    path.write_text(content)


SAVES = pytest.mark.parametrize("save", [save_in_place, save_by_rename])


@SAVES
@async_test
async def test_api_keys_file_reload_applies_added_and_removed_keys(
    tmp_path: Path, save: Callable[[Path, str], None]
) -> None:
    path = tmp_path / "keys"
    path.write_text("one\n")
    async with running_server(tmp_path, "--api-keys-file", str(path), models=MODELS) as server:
        assert (await get_status(server, "one"), await get_status(server, "two")) == (200, 401)
        save(path, "# mine\n\n  two  \none\n")
        await wait_for_status(server, "two", 200)
        assert await get_status(server, "one") == 200
        save(path, "two\n")
        await wait_for_status(server, "one", 401)
        assert await get_status(server, "two") == 200


@pytest.mark.parametrize("content", ["", "\n\n", "# nobody\n", "   \n#x"])
@async_test
async def test_api_keys_file_without_keys_rejects_everybody(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys"
    path.write_text(content)
    async with running_server(tmp_path, "--api-keys-file", str(path), models=MODELS) as server:
        for key in ("", "#", "one", content.strip()):
            assert await get_status(server, key.replace("\n", "")) == 401
        check_error(await server.get("/api/models"), 401, "unauthorized")
        assert (await server.get("/healthz")).status == 200
        path.write_text("one")
        await wait_for_status(server, "one", 200)
        path.write_text(content)
        await wait_for_status(server, "one", 401)


@async_test
async def test_api_keys_of_environment_survive_file_reload(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("one")
    environ = {"FORGELINE_API_KEYS": "always, too"}
    async with running_server(tmp_path, "--api-keys-file", str(path), environ=environ, models=MODELS) as server:
        path.write_text("")
        await wait_for_status(server, "one", 401)
        assert (await get_status(server, "always"), await get_status(server, "too")) == (200, 200)


@pytest.mark.parametrize("turn", ["deleted", "a folder", "no text"])
@async_test
async def test_api_keys_file_unreadable_keeps_last_keys(tmp_path: Path, turn: str) -> None:
    path = tmp_path / "keys"
    path.write_text("one")
    async with running_server(tmp_path, "--api-keys-file", str(path), models=MODELS) as server:
        if turn == "no text":
            path.write_bytes(b"two\n\xff\xfe")
        else:
            path.unlink()
            if turn == "a folder":
                path.mkdir()
        (tmp_path / "presets" / "models" / "n.yaml").write_text(yaml.safe_dump(scripted_model("echo")))
        await wait_until(lambda: "n" in server.services.runtime.models)
        assert (await get_status(server, "one"), await get_status(server, "two")) == (200, 401)


@pytest.mark.parametrize("content", [None, b"one\n\xff"])
@async_test
async def test_api_keys_file_unreadable_at_start_is_startup_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StartupError, match="--api-keys-file"):
        async with running(parse_options(["--port", "0", "--api-keys-file", str(path)], {})):
            pass


@async_test
async def test_api_key_removed_cannot_resume_its_stream(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("one\ntwo")
    async with (
        running_server(tmp_path, "--api-keys-file", str(path), models=MODELS) as server,
        server.open_stream("/api/stream/m", {"text": "hi"}, **{"X-API-Key": "one"}) as live,
    ):
        address = f"/api/streams/{(await live.next_event())['stream_id']}"
        path.write_text("two")
        await wait_for_status(server, "one", 401)
        check_error(await server.get(address, **{"X-API-Key": "one"}), 401, "unauthorized")
        check_error(await server.get(address, **{"X-API-Key": "two"}), 404, "unknown_stream")
