"""`forgeline`: imports at start, `serve`, and the tables."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.async_tests import slow_async_test
from tests.processes import ROOT
from tests.running_server import running_server, scripted_model, write_presets
from tests.server.client.run_cli import run_cli, start_cli, wait_for_exit


@slow_async_test
async def test_serve_starts_server_with_options_of_run(tmp_path: Path) -> None:
    write_presets(tmp_path / "presets", {"m": scripted_model("echo")})
    flags = ["--port", "0", "--presets", str(tmp_path / "presets"), "--data", str(tmp_path / "data")]
    async with start_cli(None, "serve", *flags) as server:
        assert server.stdout is not None
        url = (await server.stdout.readline()).decode().removeprefix("listening on ").strip()
        assert (await run_cli(url, "ask", "hi", "-m", "m")).out == "hi\n"
        server.terminate()
        assert (await wait_for_exit(server)).code == 0


@slow_async_test
async def test_serve_help_and_errors_are_those_of_run() -> None:
    help_result = await run_cli(None, "serve", "--help")
    error_result = await run_cli(None, "serve", "--nope")
    assert (help_result.code, "FORGELINE_MAX_BODY" in help_result.out) == (0, True)
    assert (error_result.code, "--nope" in error_result.err) == (2, True)


@slow_async_test
async def test_cli_import_loads_no_library_of_commands() -> None:
    code = (
        "import sys; from server.client import cli; print([m for m in ('aiohttp', 'rich', 'run') if m in sys.modules])"
    )
    result = await run_cli(None, command=(sys.executable, "-c", code))
    assert result.out == "[]\n"


@slow_async_test
async def test_models_prints_table_to_pipe_and_server_response_as_json(
    tmp_path: Path,
) -> None:
    models = {"good": scripted_model("echo"), "broken": scripted_model("dance:now")}
    async with running_server(tmp_path, models=models) as server:
        table = await run_cli(server.url, "models", environ={"COLUMNS": "20"})
        as_json = await run_cli(server.url, "models", "--json")
        response = await server.get("/api/models")
    assert json.loads(as_json.out) == response.json
    header, broken, good = table.out.splitlines()
    assert header.split() == ["name", "provider", "status", "takes", "why"]
    assert broken.split()[:3] == ["broken", "scripted", "unavailable"]
    assert good.split() == ["good", "scripted", "available", "text", "image", "stream"]  # no video
    assert "dance" in broken


@pytest.mark.parametrize("arguments", [["models"], ["models", "--json"], ["ask", "hi", "-m", "good", "-m", "better"]])
@slow_async_test
async def test_broken_pipe_exits_141_silently(tmp_path: Path, arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    async with running_server(
        tmp_path, models={"good": scripted_model("echo"), "better": scripted_model("echo")}
    ) as server:
        result = await run_cli(server.url, *arguments, stdout=writing)
    os.close(writing)
    assert (result.code, result.err) == (141, "")


def test_entry_point_is_cli_main() -> None:
    assert "forgeline = server.client.cli:main" in (ROOT / "setup.cfg").read_text()
