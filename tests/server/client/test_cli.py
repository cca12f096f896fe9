"""`forgeline` itself: how quickly it starts, `serve`, and the lists."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.aio import unhurried
from tests.processes import ROOT
from tests.server.client.commands import ended, started, typed
from tests.serving import says, serving, write_presets


@unhurried
async def test_serve_starts_the_same_server_with_the_same_options(tmp_path: Path) -> None:
    write_presets(tmp_path / "presets", {"m": says("echo")})
    flags = ["--port", "0", "--presets", str(tmp_path / "presets"), "--data", str(tmp_path / "data")]
    async with started(None, "serve", *flags) as server:
        assert server.stdout is not None
        url = (await server.stdout.readline()).decode().removeprefix("listening on ").strip()
        assert (await typed(url, "ask", "hi", "-m", "m")).out == "hi\n"
        server.terminate()
        assert (await ended(server)).code == 0


@unhurried
async def test_the_options_of_serve_are_those_of_the_server() -> None:
    told = await typed(None, "serve", "--help")
    wrong = await typed(None, "serve", "--nope")
    assert (told.code, "FORGELINE_MAX_BODY" in told.out) == (0, True)
    assert (wrong.code, "--nope" in wrong.err) == (2, True)


@unhurried
async def test_help_loads_nothing_that_only_a_command_needs() -> None:
    code = (
        "import sys; from server.client import cli; print([m for m in ('aiohttp', 'rich', 'run') if m in sys.modules])"
    )
    loaded = await typed(None, command=(sys.executable, "-c", code))
    assert loaded.out == "[]\n"


@unhurried
async def test_models_are_a_table_in_a_pipe_too_whatever_its_width_and_json_is_the_servers_answer(
    tmp_path: Path,
) -> None:
    models = {"good": says("echo"), "broken": says("dance:now")}
    async with serving(tmp_path, models=models) as server:
        table = await typed(server.url, "models", environ={"COLUMNS": "20"})
        as_json = await typed(server.url, "models", "--json")
        answer = await server.get("/api/models")
    assert json.loads(as_json.out) == answer.json
    header, broken, good = table.out.splitlines()
    assert header.split() == ["name", "provider", "status", "takes", "why"]
    assert broken.split()[:3] == ["broken", "scripted", "unavailable"]
    assert good.split() == ["good", "scripted", "available", "text", "image", "stream"]  # no video
    assert "dance" in broken


@pytest.mark.parametrize("arguments", [["models"], ["models", "--json"], ["ask", "hi", "-m", "good", "-m", "better"]])
@unhurried
async def test_a_pipe_that_nobody_reads_is_exit_141_without_a_word(tmp_path: Path, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    async with serving(tmp_path, models={"good": says("echo"), "better": says("echo")}) as server:
        left = await typed(server.url, *arguments, stdout=writing)
    os.close(writing)
    assert (left.code, left.err) == (141, "")


def test_the_entry_point_is_the_command_line() -> None:
    assert "forgeline = server.client.cli:main" in (ROOT / "setup.cfg").read_text()
