"""`forgeline ask`, with pipes: what a script sees."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from tests.aio import unhurried
from tests.pipeline.drawn import plain
from tests.processes import running
from tests.server.client.cable import Cable
from tests.server.client.commands import COMMAND, ended, environment, started, typed
from tests.serving import asks, says, serving, until
from tests.upstream import Upstream, stream_of


@unhurried
async def test_the_answer_and_nothing_else_goes_to_standard_output(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        answer = await typed(server.url, "ask", "What is 2+2?", "-m", "m")
    assert (answer.code, answer.out, answer.err) == (0, "What is 2+2?\n", "")


@unhurried
async def test_a_prompt_comes_from_standard_input_where_it_is_a_dash(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        answer = await typed(server.url, "ask", "-", given="two\nlines, é\n".encode(), environ={"FORGELINE_MODEL": "m"})
    assert (answer.code, answer.out) == (0, "two\nlines, é\n")


@unhurried
async def test_every_option_reaches_the_model(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(plain(8, 8).data)
    options = ["--system", "Be brief.", "--max-tokens", "7", "--temperature", "0.5", "--top-p", "0.9", "--stop", "X"]
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server:
        answer = await typed(server.url, "ask", "hi", "-m", "m", "--frame", str(picture), "-i", str(picture), *options)
    assert answer.code == 0
    body = up.requests[0].body
    system, user = body["messages"]
    assert (system["role"], system["content"]) == ("system", "Be brief.")
    assert [part["type"] for part in user["content"]].count("image_url") == 2
    assert (body["max_tokens"], body["temperature"], body["top_p"], body["stop"]) == (7, 0.5, 0.9, ["X"])


@unhurried
async def test_every_chunk_is_in_the_pipe_before_the_next_one_is_made(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server:
        up.answer = stream_of(["Hello", gate, " world"])
        async with started(server.url, "ask", "hi", "-m", "m") as command:
            assert command.stdout is not None
            assert await command.stdout.read(100) == b"Hello"
            gate.set()
            assert await command.stdout.read() == b" world\n"


@unhurried
async def test_several_models_are_labelled_and_one_that_fails_is_exit_1(tmp_path: Path) -> None:
    models = {"one": says("say:a\nb"), "three": says("say:c"), "broken": says("say:d; fail:model_error")}
    async with serving(tmp_path, models=models) as server:
        answer = await typed(server.url, "ask", "hi", "-m", "one", "-m", "three", "-m", "broken")
    assert answer.code == 1
    assert sorted(answer.out.splitlines()) == ["broken | d", "one    | a", "one    | b", "three  | c"]
    assert answer.err == "forgeline: broken: The script says so: model_error.\n"


@unhurried
async def test_json_is_every_event_on_a_line_of_its_own(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("say:a b")}) as server:
        answer = await typed(server.url, "ask", "hi", "-m", "m", "--json")
    events = [json.loads(line) for line in answer.out.splitlines()]
    assert [event["type"] for event in events] == ["start", "chunk", "chunk", "result", "complete"]
    assert [event["seq"] for event in events] == [0, 1, 2, 3, 4]


@unhurried
async def test_what_the_server_refuses_is_exit_1_and_its_sentence(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        answer = await typed(server.url, "ask", "hi", "-m", "nobody")
        as_json = await typed(server.url, "ask", "hi", "-m", "nobody", "--json")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("forgeline: No preset defines a model 'nobody'")
    assert (as_json.code, json.loads(as_json.out)["code"]) == (1, "unknown_model")


@unhurried
async def test_a_key_comes_from_the_environment_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k\n")
    async with serving(tmp_path, models={"m": says("echo")}, environ={"FORGELINE_API_KEYS": "k"}) as server:
        ask = ["ask", "hi", "-m", "m"]
        by_variable = await typed(server.url, *ask, environ={"FORGELINE_API_KEY": "k"})
        by_file = await typed(server.url, *ask, "--key-file", str(tmp_path / "key"))
        without = await typed(server.url, *ask)
    assert (by_variable.code, by_file.code, without.code) == (0, 0, 1)
    assert "key" in without.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["ask", "hi"], ["--model"]),
        (["ask", "hi", "-m", "m", "--frame", "missing.png"], ["missing.png"]),
        (["ask", "hi", "-m", "m", "--server", "localhost"], ["--server", "http://"]),
        (["ask", "hi", "-m", "m", "--max-tokens", "0"], ["--max-tokens"]),
        (["ask", "hi", "-m", "m", "--key-file", "missing"], ["missing"]),
        (["deploy", "small", "--set", "nothing"], ["NAME=VALUE"]),
        (["dance"], ["dance"]),
    ],
)
@unhurried
async def test_what_cannot_be_done_is_exit_2_and_says_why(arguments: list[str], words: list[str]) -> None:
    answer = await typed(None, *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert all(word in answer.err for word in words), answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("arguments", [["ask", "hi", "-m", "m"], ["models"], ["deploy", "small"], ["logs", "-f", "x"]])
@unhurried
async def test_a_server_that_is_not_there_is_exit_3_and_a_sentence(arguments: list[str]) -> None:
    answer = await typed("http://127.0.0.1:1", *arguments)
    assert (answer.code, answer.out) == (3, "")
    assert answer.err == (
        "forgeline: No server answers at http://127.0.0.1:1 (Connection refused)."
        " `forgeline serve` starts one; --server names another.\n"
    )


@unhurried
async def test_something_else_that_answers_is_told_apart() -> None:
    async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")
        writer.close()

    async with await asyncio.start_server(chatter, "127.0.0.1", 0) as other:
        answer = await typed(f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}", "models")
    assert (answer.code, "does not speak HTTP" in answer.err) == (3, True)


# --- leaving in the middle -------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@unhurried
async def test_a_signal_stops_the_stream_on_the_server(tmp_path: Path, number: int, code: int) -> None:
    async with serving(tmp_path, models={"m": says("say:Hello; hang")}) as server:
        async with started(server.url, "ask", "hi", "-m", "m") as command:
            assert command.stdout is not None
            assert await command.stdout.read(100) == b"Hello"
            command.send_signal(number)
            left = await ended(command)
        await server.ended()
        assert (left.code, left.err, server.scripted.cancelled) == (code, "", 1)


@unhurried
async def test_a_reader_that_leaves_the_pipe_stops_it_too(tmp_path: Path) -> None:
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server:
        gate, never = asyncio.Event(), asyncio.Event()
        up.answer = stream_of(["Hello", gate, " world", never])
        reading, writing = os.pipe()
        async with started(server.url, "ask", "hi", "-m", "m", stdout=writing) as command:
            os.close(writing)
            assert await asyncio.to_thread(os.read, reading, 100) == b"Hello"
            os.close(reading)
            gate.set()
            left = await ended(command)
        await server.ended()
    assert (left.code, left.err, up.cancelled) == (141, "", 1)


@unhurried
async def test_closed_streams_and_no_terminal_at_all_are_no_error(tmp_path: Path) -> None:
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        command = 'exec "$@" <&- >&- 2>&-'
        child = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            command,
            "sh",
            *COMMAND,
            "ask",
            "hi",
            "-m",
            "m",
            env=environment(server.url),
            start_new_session=True,
        )
        assert await child.wait() == 0
        assert server.scripted.calls == 1


# --- a connection that is lost ---------------------------------------------------------------------


@unhurried
async def test_a_lost_connection_is_resumed_where_it_was(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        Upstream() as up,
        serving(tmp_path, models={"m": asks(up.base_url)}) as server,
        Cable(server.url) as cable,
    ):
        up.answer = stream_of(["Hello", gate, " world"])
        async with started(cable.url, "ask", "hi", "-m", "m") as command:
            assert command.stdout is not None
            assert await command.stdout.read(100) == b"Hello"
            cable.unplugged = True
            cable.cut()
            gate.set()
            await until(lambda: cable.connected >= 3)  # it tries
            cable.unplugged = False
            answer = await ended(command)
    assert (answer.code, answer.out) == (0, " world\n")
    assert answer.err.splitlines() == [
        "forgeline: The connection was lost; reconnecting …",
        "forgeline: The server is back; going on where it stopped.",
    ]
    assert len(up.requests) == 1


@unhurried
async def test_a_server_that_stays_away_is_exit_3(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, models={"m": says("say:Hello; hang")}) as server,
        Cable(server.url) as cable,
        started(cable.url, "ask", "hi", "-m", "m", "--reconnect", "0.2") as command,
    ):
        assert command.stdout is not None
        assert await command.stdout.read(100) == b"Hello"
        cable.unplugged = True
        cable.cut()
        answer = await ended(command)
    assert (answer.code, answer.out) == (3, "\n")
    assert answer.err.splitlines()[-1].startswith("forgeline: The connection to http://127.0.0.1:")


@unhurried
async def test_a_server_that_was_killed_and_restarted_has_lost_the_answer_and_the_client_says_so(
    tmp_path: Path,
) -> None:
    models = {"m": says("say:Hello; hang")}
    async with running(tmp_path, models=models) as first, started(first.url, "ask", "hi", "-m", "m") as command:
        assert command.stdout is not None
        assert await command.stdout.read(100) == b"Hello"
        first.child.kill()
        await first.child.wait()
        async with running(tmp_path, "--port", first.url.rpartition(":")[2], models=models):
            answer = await ended(command)
    assert (answer.code, answer.out) == (1, "\n")
    assert answer.err.splitlines()[-1].startswith(
        "forgeline: The rest of the answer is lost; was the server restarted?"
    )
