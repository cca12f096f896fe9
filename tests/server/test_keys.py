"""--api-keys-file: a key that is added or removed counts while the server runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import run
from server.options import parse
from tests.aio import asynchronous, comes_true
from tests.server.checks import check_error
from tests.serving import Server, says, serving

MODELS = {"m": says("say:Hello; hang")}


async def status_of(server: Server, key: str) -> int:
    return (await server.get("/api/models", **{"X-API-Key": key})).status


async def becomes(server: Server, key: str, status: int) -> None:
    while await status_of(server, key) != status:
        pass


def rename_over(path: Path, content: str) -> None:
    path.with_suffix(".new").write_text(content)
    path.with_suffix(".new").replace(path)


def in_place(path: Path, content: str) -> None:
    path.write_text(content)


SAVES = pytest.mark.parametrize("save", [in_place, rename_over])


@SAVES
@asynchronous
async def test_a_key_that_is_added_or_removed_counts(tmp_path: Path, save: Callable[[Path, str], None]) -> None:
    path = tmp_path / "keys"
    path.write_text("one\n")
    async with serving(tmp_path, "--api-keys-file", str(path), models=MODELS) as server:
        assert (await status_of(server, "one"), await status_of(server, "two")) == (200, 401)
        save(path, "# mine\n\n  two  \none\n")
        await becomes(server, "two", 200)
        assert await status_of(server, "one") == 200
        save(path, "two\n")
        await becomes(server, "one", 401)
        assert await status_of(server, "two") == 200


@pytest.mark.parametrize("content", ["", "\n\n", "# nobody\n", "   \n#x"])
@asynchronous
async def test_a_file_without_keys_lets_nobody_in(tmp_path: Path, content: str) -> None:
    path = tmp_path / "keys"
    path.write_text(content)
    async with serving(tmp_path, "--api-keys-file", str(path), models=MODELS) as server:
        for key in ("", "#", "one", content.strip()):
            assert await status_of(server, key.replace("\n", "")) == 401
        check_error(await server.get("/api/models"), 401, "unauthorized")
        assert (await server.get("/healthz")).status == 200
        path.write_text("one")
        await becomes(server, "one", 200)
        path.write_text(content)
        await becomes(server, "one", 401)


@asynchronous
async def test_keys_of_the_environment_stay_whatever_the_file_says(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("one")
    environ = {"FORGELINE_API_KEYS": "always, too"}
    async with serving(tmp_path, "--api-keys-file", str(path), environ=environ, models=MODELS) as server:
        path.write_text("")
        await becomes(server, "one", 401)
        assert (await status_of(server, "always"), await status_of(server, "too")) == (200, 200)


@pytest.mark.parametrize("turn", ["deleted", "a folder", "no text"])
@asynchronous
async def test_a_file_that_cannot_be_read_changes_nothing_and_holds_nothing_else_up(tmp_path: Path, turn: str) -> None:
    path = tmp_path / "keys"
    path.write_text("one")
    async with serving(tmp_path, "--api-keys-file", str(path), models=MODELS) as server:
        if turn == "no text":
            path.write_bytes(b"two\n\xff\xfe")
        else:
            path.unlink()
            if turn == "a folder":
                path.mkdir()
        (tmp_path / "presets" / "models" / "n.yaml").write_text(yaml.safe_dump(says("echo")))
        await comes_true(lambda: "n" in server.services.runtime.models)
        assert (await status_of(server, "one"), await status_of(server, "two")) == (200, 401)


@pytest.mark.parametrize("content", [None, b"one\n\xff"])
@asynchronous
async def test_a_server_does_not_start_with_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(run.CannotStart, match="--api-keys-file"):
        async with run.running(parse(["--port", "0", "--api-keys-file", str(path)], {})):
            pass


@asynchronous
async def test_a_removed_keys_running_stream_cannot_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("one\ntwo")
    async with (
        serving(tmp_path, "--api-keys-file", str(path), models=MODELS) as server,
        server.live("/api/stream/m", {"text": "hi"}, **{"X-API-Key": "one"}) as live,
    ):
        address = f"/api/streams/{(await live.next())['stream_id']}"
        path.write_text("two")
        await becomes(server, "one", 401)
        check_error(await server.get(address, **{"X-API-Key": "one"}), 401, "unauthorized")
        check_error(await server.get(address, **{"X-API-Key": "two"}), 404, "unknown_stream")
