"""Presets that are saved while the server runs, in every way in which that is done, through the real watcher."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from tests.async_tests import async_test
from tests.running_server import STAGES, RunningServer, running_server, scripted_model, upstream_model, write_presets
from tests.server.checks import check_error, check_stream, text_of
from tests.sockets import Message, WebSocketClient, connect_websocket
from tests.upstream import Upstream, stream_response

HI = {"text": "hi"}
MAX_SECONDS = 1.0  # seconds, in which a preset that was saved has to count
OLD, NEW = yaml.safe_dump(scripted_model("say:old")), yaml.safe_dump(scripted_model("say:new"))


@asynccontextmanager
async def subscribed_server(folder: Path, **models: str) -> AsyncIterator[tuple[RunningServer, WebSocketClient, Path]]:
    """A server whose feed is followed, and the file of its model `m`, which says `old`."""
    scripts = {"m": "say:old", **models}
    presets = {name: scripted_model(script) for name, script in scripts.items()}
    async with running_server(folder, models=presets) as server, connect_websocket(server) as client:
        await client.send(op="subscribe", id="f", topics=["models", "presets"])
        assert (await client.next_event("f"))["type"] == "snapshot"
        yield server, client, folder / "presets" / "models" / "m.yaml"


async def wait_for_change(client: WebSocketClient, **fields: object) -> Message:
    """The first message of the feed that says this, if it comes soon."""
    async with asyncio.timeout(MAX_SECONDS):
        while not fields.items() <= (message := await client.next_event("f")).items():
            pass
        return message


async def ask_model(server: RunningServer, model: str = "m") -> str:
    return (await server.post(f"/api/models/{model}", HI)).text


def save_by_rename(path: Path, content: str) -> None:
    temporary = path.with_name(f".{path.name}.swp")
    temporary.write_text(content)
    temporary.replace(path)


def save_like_vim(path: Path, content: str) -> None:
    """As vim does with backupcopy=no: the old file moved to a backup, the new one written under its name."""
    (path.parent / "4913").touch()
    (path.parent / "4913").unlink()
    path.rename(path.with_name(path.name + "~"))
    path.write_text(content)
    path.with_name(path.name + "~").unlink()


def save_like_sed(path: Path, content: str) -> None:
    subprocess.run(["/usr/bin/env", "sed", "-i", "s/old/new/", path], check=True)


def save_as_link(path: Path, content: str) -> None:
    elsewhere = path.parent.parent / "elsewhere.txt"
    elsewhere.write_text(content)
    path.unlink()
    path.symlink_to(elsewhere)


def save_with_old_mtime(path: Path, content: str) -> None:
    """As `cp -p` and archives do."""
    save_by_rename(path, content)
    os.utime(path, (1, 1))


SAVES: list[Callable[[Path, str], None]] = [
    lambda path, content: (path.write_text(content), None)[1],
    save_by_rename,
    save_like_vim,
    save_like_sed,
    save_as_link,
    save_with_old_mtime,
]


@pytest.mark.parametrize("save", SAVES)
@async_test
async def test_reload_applies_saved_preset_to_next_request(tmp_path: Path, save: Callable[[Path, str], None]) -> None:
    async with subscribed_server(tmp_path) as (server, client, path):
        assert await ask_model(server) == "old"
        save(path, NEW)
        model = await wait_for_change(client, type="model", name="m")
        while model["model"] != "say:new":  # a save of several steps may have been seen between two of them
            model = await wait_for_change(client, type="model", name="m")
        assert await ask_model(server) == "new"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("provider: scripted\nmodel: [say\n", 3),
        ("provider: scripted\nmodel: say:new\nmax_tokens: 3\n", 3),
        ("provider: scripted\nlimits:\n  frames: -1\nmodel: x\n", 3),
        ("provider: scripted\n", 1),
        ("- a list\n", 1),
    ],
)
@async_test
async def test_reload_rejects_broken_preset_and_keeps_last_version(tmp_path: Path, content: str, line: int) -> None:
    async with subscribed_server(tmp_path) as (server, client, path):
        path.write_text(content)
        rejected = await wait_for_change(client, type="preset", change="rejected")
        assert (rejected["kind"], rejected["name"]) == ("model", "m")
        assert rejected["error"].startswith(f"models/m.yaml:{line}: ")
        assert await ask_model(server) == "old"
        path.write_text(NEW)
        await wait_for_change(client, type="preset", name="m", change="changed")
        assert await ask_model(server) == "new"


@async_test
async def test_reload_rejects_half_written_preset_until_complete(tmp_path: Path) -> None:
    async with subscribed_server(tmp_path) as (server, client, path):
        with path.open("w") as file:
            file.write('provider: scripted\nmodel: "say')
            file.flush()
            await wait_for_change(client, type="preset", name="m", change="rejected")
            assert await ask_model(server) == "old"
            file.write(':new"\n')
        await wait_for_change(client, type="model", model="say:new")
        assert await ask_model(server) == "new"


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def replace_by_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def remove_permission(path: Path) -> None:
    path.chmod(0)


@pytest.mark.parametrize(
    "turn", [replace_by_folder, replace_by_dangling_link, replace_by_link_to_itself, remove_permission]
)
@async_test
async def test_reload_rejects_unreadable_preset_and_keeps_last_version(
    tmp_path: Path, turn: Callable[[Path], None]
) -> None:
    if turn is remove_permission and os.geteuid() == 0:
        pytest.skip("root reads every file; a folder in its place stands for it")
    async with subscribed_server(tmp_path) as (server, client, path):
        turn(path)
        rejected = await wait_for_change(client, type="preset", change="rejected")
        assert rejected["error"].startswith("models/m.yaml: ")
        assert await ask_model(server) == "old"


@async_test
async def test_reload_removes_and_adds_models(tmp_path: Path) -> None:
    async with subscribed_server(tmp_path) as (server, client, path):
        path.unlink()
        await wait_for_change(client, type="preset", name="m", change="removed")
        assert (await wait_for_change(client, type="model", name="m"))["availability"] == "removed"
        check_error(await server.post("/api/models/m", HI), 404, "unknown_model")
        path.write_text(NEW)
        await wait_for_change(client, type="preset", name="m", change="added")
        assert await ask_model(server) == "new"


@async_test
async def test_reload_follows_renamed_folder(tmp_path: Path) -> None:
    async with subscribed_server(tmp_path, other="say:other") as (server, client, path):
        path.parent.rename(tmp_path / "presets" / "away")
        for name in ("m", "other"):
            await wait_for_change(client, type="model", name=name, availability="removed")
        (tmp_path / "presets" / "away" / "m.yaml").write_text(NEW)
        (tmp_path / "presets" / "away").rename(path.parent)
        await wait_for_change(client, type="model", name="other", availability="available")
        assert await ask_model(server) == "new"
        path.write_text(OLD)
        await wait_for_change(client, type="model", name="m", model="say:old")


@async_test
async def test_reload_follows_swapped_folder(tmp_path: Path) -> None:
    async with subscribed_server(tmp_path) as (server, client, path):
        write_presets(tmp_path / "next", {"m": scripted_model("say:new")})
        (tmp_path / "presets").rename(tmp_path / "before")
        (tmp_path / "next").rename(tmp_path / "presets")
        await wait_for_change(client, type="model", model="say:new")
        path.write_text(OLD)
        await wait_for_change(client, type="model", model="say:old")
        assert await ask_model(server) == "old"


@async_test
async def test_reload_follows_swapped_link(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "presets").symlink_to("one")
    async with subscribed_server(tmp_path) as (server, client, path):
        write_presets(tmp_path / "two", {"m": scripted_model("say:new")})
        (tmp_path / "link").symlink_to("two")
        (tmp_path / "link").replace(tmp_path / "presets")
        await wait_for_change(client, type="model", model="say:new")
        assert await ask_model(server) == "new"
        path.write_text(OLD)
        await wait_for_change(client, type="model", model="say:old")


@async_test
async def test_reload_follows_configmap_update(tmp_path: Path) -> None:
    models = tmp_path / "presets" / "models"
    for stamp, content in (("..2026_01", OLD), ("..2026_02", NEW)):
        (models / stamp).mkdir(parents=True)
        (models / stamp / "c.yaml").write_text(content)
    (models / "..data").symlink_to("..2026_01")
    (models / "c.yaml").symlink_to("..data/c.yaml")
    async with subscribed_server(tmp_path) as (server, client, _):
        assert await ask_model(server, "c") == "old"
        (models / "..data_tmp").symlink_to("..2026_02")
        (models / "..data_tmp").replace(models / "..data")
        await wait_for_change(client, type="model", name="c", model="say:new")
        assert await ask_model(server, "c") == "new"


@async_test
async def test_reload_debounces_burst_of_saves(tmp_path: Path) -> None:
    async with subscribed_server(tmp_path) as (server, client, path):
        for number in range(1000):
            save_by_rename(path, yaml.safe_dump(scripted_model(f"say:{number}")))
            if number % 200 == 0:
                assert (await ask_model(server)).isalnum()
        count = 1
        while (await wait_for_change(client, type="model", name="m"))["model"] != "say:999":
            count += 1
        assert count < 100
        assert await ask_model(server) == "999"


@async_test
async def test_reload_keeps_presets_of_request_in_flight(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Upstream() as up, subscribed_server(tmp_path) as (server, client, path):
        up.response = stream_response(["Hello", gate, " world"])
        path.write_text(yaml.safe_dump(upstream_model(up.base_url)))
        await wait_for_change(client, type="model", name="m", provider="openai_compatible")
        async with server.open_stream("/api/stream/m", HI) as live:
            events = [await live.next_event(), await live.next_event()]
            for content in (NEW, "broken: [", None):
                path.write_text(content) if content is not None else path.unlink()
                await wait_for_change(client, type="preset", name="m")
            gate.set()
            assert text_of(check_stream(events + await live.remaining_events())["m"]) == "Hello world"
        check_error(await server.post("/api/models/m", HI), 404, "unknown_model")
        assert up.cancelled == 0


@async_test
async def test_reload_applies_pipeline_and_rejects_broken_one(tmp_path: Path) -> None:
    async with subscribed_server(tmp_path) as (server, client, path):
        pipeline = tmp_path / "presets" / "pipeline.yaml"
        path.write_text(yaml.safe_dump(scripted_model("say:Hello; hang", concurrency={"calls": 1, "queue": 0})))
        await wait_for_change(client, type="model", model="say:Hello; hang")
        ask = {"op": "infer", "model": "m", "text": "hi"}
        await client.send(id="a", **ask)
        await client.read_until("a", "chunk")
        await client.send(id="b", **ask)
        assert (await client.read_until("b", "error"))[-1]["code"] == "rate_limited"
        pipeline.write_text(yaml.safe_dump({"stages": [name for name in STAGES if name != "limit"]}))
        await wait_for_change(client, type="preset", kind="pipeline", change="changed")
        for broken in ("stages: [invoke, nobody]", "stages: [", "stages: [invoke]"):
            pipeline.write_text(broken)
            rejected = await wait_for_change(client, type="preset", kind="pipeline", change="rejected")
            assert rejected["error"].startswith("pipeline.yaml:1: ")
        await client.send(id="c", **ask)
        await client.read_until("c", "chunk")
        assert server.services.streams.running_count == 2
