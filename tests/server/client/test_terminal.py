"""The command line at a real terminal: what a person sees there, and nowhere else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.aio import unhurried
from tests.server.client.commands import COMMAND, terminal
from tests.serving import asks, says, serving
from tests.upstream import Upstream, stream_of

ESCAPE = "\x1b["
COLOUR = "\x1b[3"


@unhurried
async def test_an_answer_comes_token_by_token_and_then_its_measures(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server:
        up.answer = stream_of(["Hello", gate, " world"])
        async with terminal(server.url, "ask", "hi", "-m", "m") as screen:
            await screen.shows("Hello")
            gate.set()
            assert await screen.exit_code() == 0
    assert screen.lines[0] == "Hello world"
    assert screen.lines[1].startswith("m · ")


@unhurried
async def test_ctrl_c_is_exit_130_and_stops_the_stream_on_the_server(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("say:Hello; hang")}) as server:
        async with terminal(server.url, "ask", "hi", "-m", "m") as screen:
            await screen.shows("Hello")
            screen.interrupt()
            assert await screen.exit_code() == 130
        await server.ended()
        assert server.scripted.cancelled == 1
    assert "Traceback" not in screen.raw


@unhurried
async def test_what_a_model_says_cannot_move_the_cursor_or_set_a_title(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo"), "n": says("echo")}) as server:
        evil = "a\x1b[2J\x1b]0;title\x07b\rc"
        async with terminal(server.url, "ask", evil, "-m", "m") as one:
            await one.exit_code()
        async with terminal(server.url, "ask", evil, "-m", "m", "-m", "n") as two:
            await two.exit_code()
    for screen in (one, two):
        assert "a[2J]0;titlebc" in screen.raw
        assert "\x1b]0" not in screen.raw


@pytest.mark.parametrize(("width", "rows"), [(80, 3), (40, 6)])
@unhurried
async def test_models_stand_side_by_side_where_they_fit_and_else_one_under_the_other(
    tmp_path: Path, width: int, rows: int
) -> None:
    models = {"one": says("say:Hello there"), "two": says("say:Good day")}
    async with (
        serving(tmp_path, models=models) as server,
        terminal(server.url, "ask", "hi", "-m", "one", "-m", "two", width=width) as screen,
    ):
        assert await screen.exit_code() == 0
    panels = [line for line in screen.lines if line[0] in "╭│╰"]
    assert len(panels) == rows
    assert {len(line) for line in panels} == {width}
    assert COLOUR in screen.raw


@unhurried
async def test_answers_longer_than_the_screen_are_shown_live_at_their_end_and_whole_when_done(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url), "n": says("say:short")}) as server:
        up.answer = stream_of([*(f"line {number}\n" for number in range(100)), gate, "end"])
        async with terminal(server.url, "ask", "hi", "-m", "m", "-m", "n") as screen:
            await screen.shows("line 99")
            assert "line 10 " not in screen.raw
            gate.set()
            assert await screen.exit_code() == 0
    assert all(f"line {number} " in screen.raw for number in range(100))


@unhurried
async def test_no_color_and_a_dumb_terminal_are_respected(tmp_path: Path) -> None:
    ask = ["ask", "hi", "-m", "m", "-m", "broken"]
    async with serving(tmp_path, models={"m": says("echo"), "broken": says("fail:model_error")}) as server:
        async with terminal(server.url, *ask, environ={"NO_COLOR": "1"}) as uncoloured:
            assert await uncoloured.exit_code() == 1
        async with terminal(server.url, *ask, environ={"TERM": "dumb"}) as dumb:
            assert await dumb.exit_code() == 1
    assert COLOUR not in uncoloured.raw
    assert ESCAPE not in dumb.raw
    assert "m      | hi" in dumb.lines


@unhurried
async def test_a_pipe_gets_no_colours_also_where_errors_go_to_a_terminal(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shell = ("sh", "-c", f'"$@" | tee {copy}', "sh", *COMMAND)
    models = {"m": says("echo"), "broken": says("fail:model_error")}
    async with serving(tmp_path, models=models) as server:
        async with terminal(server.url, "ask", "hi", "-m", "m", "-m", "broken", command=shell) as screen:
            await screen.exit_code()
        async with terminal(server.url, "models", command=shell) as table:
            await table.exit_code()
        assert ESCAPE not in copy.read_text()
    assert "m      | hi" in screen.lines
    assert f"{ESCAPE}1;31mforgeline: " in screen.raw
    assert "available" in table.raw


@pytest.mark.parametrize("width", [40, 60, 80, 200])
@unhurried
async def test_a_table_keeps_to_the_width_of_the_terminal(tmp_path: Path, width: int) -> None:
    models = {"a-model-with-a-long-name": says("echo"), "broken": says("dance:now")}
    async with serving(tmp_path, models=models) as server, terminal(server.url, "models", width=width) as screen:
        assert await screen.exit_code() == 0
    assert max(map(len, screen.lines)) <= width
    assert "a-model-with-a-long-name" in screen.raw
    assert "unavailable" in screen.raw
    assert f"{ESCAPE}32mavailable" in screen.raw


@unhurried
async def test_a_server_that_is_not_there_is_told_in_red() -> None:
    async with terminal("http://127.0.0.1:1", "models") as screen:
        assert await screen.exit_code() == 3
    assert f"{ESCAPE}1;31mforgeline: " in screen.raw
    assert "Traceback" not in screen.raw
