"""The command line at a real terminal: colours, panels, progress bars, Ctrl-C."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.async_tests import slow_async_test
from tests.running_server import running_server, scripted_model, upstream_model
from tests.server.client.run_cli import COMMAND, open_terminal
from tests.upstream import Upstream, stream_response

ESCAPE = "\x1b["
COLOUR = "\x1b[3"


@slow_async_test
async def test_ask_at_terminal_streams_tokens_then_prints_metrics(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        Upstream() as upstream,
        running_server(tmp_path, models={"m": upstream_model(upstream.base_url)}) as server,
    ):
        upstream.response = stream_response(["Hello", gate, " world"])
        async with open_terminal(server.url, "ask", "hi", "-m", "m") as screen:
            await screen.wait_for_output("Hello")
            gate.set()
            assert await screen.exit_code() == 0
    assert screen.lines[0] == "Hello world"
    assert screen.lines[1].startswith("m · ")


@slow_async_test
async def test_ask_ctrl_c_exits_130_and_stops_stream_on_server(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("say:Hello; hang")}) as server:
        async with open_terminal(server.url, "ask", "hi", "-m", "m") as screen:
            await screen.wait_for_output("Hello")
            screen.interrupt()
            assert await screen.exit_code() == 130
        await server.wait_until_idle()
        assert server.scripted.cancelled == 1
    assert "Traceback" not in screen.raw


@slow_async_test
async def test_ask_strips_control_characters_from_answers(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo"), "n": scripted_model("echo")}) as server:
        evil = "a\x1b[2J\x1b]0;title\x07b\rc"
        async with open_terminal(server.url, "ask", evil, "-m", "m") as plain:
            await plain.exit_code()
        async with open_terminal(server.url, "ask", evil, "-m", "m", "-m", "n") as side_by_side:
            await side_by_side.exit_code()
    for screen in (plain, side_by_side):
        assert "a[2J]0;titlebc" in screen.raw
        assert "\x1b]0" not in screen.raw


@pytest.mark.parametrize(("width", "rows"), [(80, 3), (40, 6)])
@slow_async_test
async def test_ask_several_models_puts_panels_side_by_side_or_stacked(tmp_path: Path, width: int, rows: int) -> None:
    models = {"one": scripted_model("say:Hello there"), "two": scripted_model("say:Good day")}
    async with (
        running_server(tmp_path, models=models) as server,
        open_terminal(server.url, "ask", "hi", "-m", "one", "-m", "two", width=width) as screen,
    ):
        assert await screen.exit_code() == 0
    panels = [line for line in screen.lines if line[0] in "╭│╰"]
    assert len(panels) == rows
    assert {len(line) for line in panels} == {width}
    assert COLOUR in screen.raw


@slow_async_test
async def test_ask_long_answers_show_last_lines_live_and_whole_text_at_end(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        Upstream() as upstream,
        running_server(
            tmp_path, models={"m": upstream_model(upstream.base_url), "n": scripted_model("say:short")}
        ) as server,
    ):
        upstream.response = stream_response([*(f"line {number}\n" for number in range(100)), gate, "end"])
        async with open_terminal(server.url, "ask", "hi", "-m", "m", "-m", "n") as screen:
            await screen.wait_for_output("line 99")
            assert "line 10 " not in screen.raw
            gate.set()
            assert await screen.exit_code() == 0
    assert all(f"line {number} " in screen.raw for number in range(100))


@slow_async_test
async def test_ask_respects_no_color_and_dumb_terminal(tmp_path: Path) -> None:
    ask = ["ask", "hi", "-m", "m", "-m", "broken"]
    async with running_server(
        tmp_path, models={"m": scripted_model("echo"), "broken": scripted_model("fail:model_error")}
    ) as server:
        async with open_terminal(server.url, *ask, environ={"NO_COLOR": "1"}) as uncoloured:
            assert await uncoloured.exit_code() == 1
        async with open_terminal(server.url, *ask, environ={"TERM": "dumb"}) as dumb:
            assert await dumb.exit_code() == 1
    assert COLOUR not in uncoloured.raw
    assert ESCAPE not in dumb.raw
    assert "m      | hi" in dumb.lines


@slow_async_test
async def test_pipe_gets_no_colours_while_stderr_is_terminal(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shell = ("sh", "-c", f'"$@" | tee {copy}', "sh", *COMMAND)
    models = {"m": scripted_model("echo"), "broken": scripted_model("fail:model_error")}
    async with running_server(tmp_path, models=models) as server:
        async with open_terminal(server.url, "ask", "hi", "-m", "m", "-m", "broken", command=shell) as screen:
            await screen.exit_code()
        async with open_terminal(server.url, "models", command=shell) as table:
            await table.exit_code()
        assert ESCAPE not in copy.read_text()
    assert "m      | hi" in screen.lines
    assert f"{ESCAPE}1;31mforgeline: " in screen.raw
    assert "available" in table.raw


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@slow_async_test
async def test_models_table_fits_terminal_width(tmp_path: Path, width: int) -> None:
    models = {"a-model-with-a-long-name": scripted_model("echo"), "broken": scripted_model("dance:now")}
    async with (
        running_server(tmp_path, models=models) as server,
        open_terminal(server.url, "models", width=width) as screen,
    ):
        assert await screen.exit_code() == 0
    assert max(map(len, screen.lines)) <= width
    assert "a-model-with-a-long-name" in screen.raw
    assert "unavailable" in screen.raw
    assert f"{ESCAPE}32mavailable" in screen.raw


@slow_async_test
async def test_unreachable_server_is_reported_in_red() -> None:
    async with open_terminal("http://127.0.0.1:1", "models") as screen:
        assert await screen.exit_code() == 3
    assert f"{ESCAPE}1;31mforgeline: " in screen.raw
    assert "Traceback" not in screen.raw
