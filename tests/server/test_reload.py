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

from tests.aio import asynchronous
from tests.server.checks import check_error, check_stream, text_of
from tests.serving import STAGES, Server, asks, says, serving, write_presets
from tests.sockets import Message, Talk, talking
from tests.upstream import Upstream, stream_of

HI = {"text": "hi"}
SOON = 1.0  # seconds, in which a preset that was saved has to count
OLD, NEW = yaml.safe_dump(says("say:old")), yaml.safe_dump(says("say:new"))


@asynccontextmanager
async def following(folder: Path, **models: str) -> AsyncIterator[tuple[Server, Talk, Path]]:
    """A server whose feed is followed, and the file of its model `m`, which says `old`."""
    scripts = {"m": "say:old", **models}
    presets = {name: says(script) for name, script in scripts.items()}
    async with serving(folder, models=presets) as server, talking(server) as talk:
        await talk.say(op="subscribe", id="f", topics=["models", "presets"])
        assert (await talk.next("f"))["type"] == "snapshot"
        yield server, talk, folder / "presets" / "models" / "m.yaml"


async def told(talk: Talk, **fields: object) -> Message:
    """The first message of the feed that says this, if it comes soon."""
    async with asyncio.timeout(SOON):
        while not fields.items() <= (message := await talk.next("f")).items():
            pass
        return message


async def answer_of(server: Server, model: str = "m") -> str:
    return (await server.post(f"/api/models/{model}", HI)).text


def rename_over(path: Path, content: str) -> None:
    temporary = path.with_name(f".{path.name}.swp")
    temporary.write_text(content)
    temporary.replace(path)


def like_vim(path: Path, content: str) -> None:
    """As vim does with backupcopy=no: the old file moved to a backup, the new one written under its name."""
    (path.parent / "4913").touch()
    (path.parent / "4913").unlink()
    path.rename(path.with_name(path.name + "~"))
    path.write_text(content)
    path.with_name(path.name + "~").unlink()


def like_sed(path: Path, content: str) -> None:
    subprocess.run(["/usr/bin/env", "sed", "-i", "s/old/new/", path], check=True)


def as_a_link(path: Path, content: str) -> None:
    elsewhere = path.parent.parent / "elsewhere.txt"
    elsewhere.write_text(content)
    path.unlink()
    path.symlink_to(elsewhere)


def with_old_times(path: Path, content: str) -> None:
    """As `cp -p` and archives do."""
    rename_over(path, content)
    os.utime(path, (1, 1))


SAVES: list[Callable[[Path, str], None]] = [
    lambda path, content: (path.write_text(content), None)[1],
    rename_over,
    like_vim,
    like_sed,
    as_a_link,
    with_old_times,
]


@pytest.mark.parametrize("save", SAVES)
@asynchronous
async def test_a_preset_that_is_saved_counts_for_the_next_request(
    tmp_path: Path, save: Callable[[Path, str], None]
) -> None:
    async with following(tmp_path) as (server, talk, path):
        assert await answer_of(server) == "old"
        save(path, NEW)
        model = await told(talk, type="model", name="m")
        while model["model"] != "say:new":  # a save of several steps may have been seen between two of them
            model = await told(talk, type="model", name="m")
        assert await answer_of(server) == "new"


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
@asynchronous
async def test_a_broken_file_is_rejected_with_file_and_line_and_the_old_one_answers(
    tmp_path: Path, content: str, line: int
) -> None:
    async with following(tmp_path) as (server, talk, path):
        path.write_text(content)
        rejected = await told(talk, type="preset", change="rejected")
        assert (rejected["kind"], rejected["name"]) == ("model", "m")
        assert rejected["error"].startswith(f"models/m.yaml:{line}: ")
        assert await answer_of(server) == "old"
        path.write_text(NEW)
        await told(talk, type="preset", name="m", change="changed")
        assert await answer_of(server) == "new"


@asynchronous
async def test_a_half_written_file_is_no_preset_until_its_rest_has_come(tmp_path: Path) -> None:
    async with following(tmp_path) as (server, talk, path):
        with path.open("w") as file:
            file.write('provider: scripted\nmodel: "say')
            file.flush()
            await told(talk, type="preset", name="m", change="rejected")
            assert await answer_of(server) == "old"
            file.write(':new"\n')
        await told(talk, type="model", model="say:new")
        assert await answer_of(server) == "new"


def into_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def into_a_link_to_nowhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def into_a_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def into_one_without_permission(path: Path) -> None:
    path.chmod(0)


@pytest.mark.parametrize(
    "turn", [into_a_folder, into_a_link_to_nowhere, into_a_link_to_itself, into_one_without_permission]
)
@asynchronous
async def test_a_file_that_cannot_be_read_is_rejected_and_the_old_one_answers(
    tmp_path: Path, turn: Callable[[Path], None]
) -> None:
    if turn is into_one_without_permission and os.geteuid() == 0:
        pytest.skip("root reads every file; a folder in its place stands for it")
    async with following(tmp_path) as (server, talk, path):
        turn(path)
        rejected = await told(talk, type="preset", change="rejected")
        assert rejected["error"].startswith("models/m.yaml: ")
        assert await answer_of(server) == "old"


@asynchronous
async def test_a_deleted_file_takes_its_model_away_and_a_new_one_brings_it(tmp_path: Path) -> None:
    async with following(tmp_path) as (server, talk, path):
        path.unlink()
        await told(talk, type="preset", name="m", change="removed")
        assert (await told(talk, type="model", name="m"))["availability"] == "removed"
        check_error(await server.post("/api/models/m", HI), 404, "unknown_model")
        path.write_text(NEW)
        await told(talk, type="preset", name="m", change="added")
        assert await answer_of(server) == "new"


@asynchronous
async def test_a_folder_that_is_renamed_takes_its_models_away_and_brings_them_back(tmp_path: Path) -> None:
    async with following(tmp_path, other="say:other") as (server, talk, path):
        path.parent.rename(tmp_path / "presets" / "away")
        for name in ("m", "other"):
            await told(talk, type="model", name=name, availability="removed")
        (tmp_path / "presets" / "away" / "m.yaml").write_text(NEW)
        (tmp_path / "presets" / "away").rename(path.parent)
        await told(talk, type="model", name="other", availability="available")
        assert await answer_of(server) == "new"
        path.write_text(OLD)
        await told(talk, type="model", name="m", model="say:old")


@asynchronous
async def test_the_whole_folder_of_presets_may_be_swapped_for_another(tmp_path: Path) -> None:
    async with following(tmp_path) as (server, talk, path):
        write_presets(tmp_path / "next", {"m": says("say:new")})
        (tmp_path / "presets").rename(tmp_path / "before")
        (tmp_path / "next").rename(tmp_path / "presets")
        await told(talk, type="model", model="say:new")
        path.write_text(OLD)
        await told(talk, type="model", model="say:old")
        assert await answer_of(server) == "old"


@asynchronous
async def test_the_folder_of_presets_may_be_a_link_that_is_swapped(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "presets").symlink_to("one")
    async with following(tmp_path) as (server, talk, path):
        write_presets(tmp_path / "two", {"m": says("say:new")})
        (tmp_path / "link").symlink_to("two")
        (tmp_path / "link").replace(tmp_path / "presets")
        await told(talk, type="model", model="say:new")
        assert await answer_of(server) == "new"
        path.write_text(OLD)
        await told(talk, type="model", model="say:old")


@asynchronous
async def test_a_configmap_swaps_only_its_inner_data(tmp_path: Path) -> None:
    models = tmp_path / "presets" / "models"
    for stamp, content in (("..2026_01", OLD), ("..2026_02", NEW)):
        (models / stamp).mkdir(parents=True)
        (models / stamp / "c.yaml").write_text(content)
    (models / "..data").symlink_to("..2026_01")
    (models / "c.yaml").symlink_to("..data/c.yaml")
    async with following(tmp_path) as (server, talk, _):
        assert await answer_of(server, "c") == "old"
        (models / "..data_tmp").symlink_to("..2026_02")
        (models / "..data_tmp").replace(models / "..data")
        await told(talk, type="model", name="c", model="say:new")
        assert await answer_of(server, "c") == "new"


@asynchronous
async def test_of_a_burst_of_a_thousand_saves_the_last_one_counts_and_few_are_told(tmp_path: Path) -> None:
    async with following(tmp_path) as (server, talk, path):
        for number in range(1000):
            rename_over(path, yaml.safe_dump(says(f"say:{number}")))
            if number % 200 == 0:
                assert (await answer_of(server)).isalnum()
        count = 1
        while (await told(talk, type="model", name="m"))["model"] != "say:999":
            count += 1
        assert count < 100
        assert await answer_of(server) == "999"


@asynchronous
async def test_a_request_in_flight_keeps_the_presets_it_began_with(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Upstream() as up, following(tmp_path) as (server, talk, path):
        up.answer = stream_of(["Hello", gate, " world"])
        path.write_text(yaml.safe_dump(asks(up.base_url)))
        await told(talk, type="model", name="m", provider="openai_compatible")
        async with server.live("/api/stream/m", HI) as live:
            events = [await live.next(), await live.next()]
            for content in (NEW, "broken: [", None):
                path.write_text(content) if content is not None else path.unlink()
                await told(talk, type="preset", name="m")
            gate.set()
            assert text_of(check_stream(events + await live.rest())["m"]) == "Hello world"
        check_error(await server.post("/api/models/m", HI), 404, "unknown_model")
        assert up.cancelled == 0


@asynchronous
async def test_the_pipeline_reloads_and_a_broken_one_is_rejected(tmp_path: Path) -> None:
    async with following(tmp_path) as (server, talk, path):
        pipeline = tmp_path / "presets" / "pipeline.yaml"
        path.write_text(yaml.safe_dump(says("say:Hello; hang", concurrency={"calls": 1, "queue": 0})))
        await told(talk, type="model", model="say:Hello; hang")
        ask = {"op": "infer", "model": "m", "text": "hi"}
        await talk.say(id="a", **ask)
        await talk.until("a", "chunk")
        await talk.say(id="b", **ask)
        assert (await talk.until("b", "error"))[-1]["code"] == "rate_limited"
        pipeline.write_text(yaml.safe_dump({"stages": [name for name in STAGES if name != "limit"]}))
        await told(talk, type="preset", kind="pipeline", change="changed")
        for broken in ("stages: [invoke, nobody]", "stages: [", "stages: [invoke]"):
            pipeline.write_text(broken)
            rejected = await told(talk, type="preset", kind="pipeline", change="rejected")
            assert rejected["error"].startswith("pipeline.yaml:1: ")
        await talk.say(id="c", **ask)
        await talk.until("c", "chunk")
        assert server.services.streams.running == 2
