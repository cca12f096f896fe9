"""`forgeline ask` with pipes, as scripts use it, and the exit codes of all commands."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from tests.async_tests import slow_async_test
from tests.pipeline.media.make_pictures import plain_picture
from tests.processes import running_process
from tests.running_server import running_server, scripted_model, spin_until, upstream_model
from tests.server.client.cuttable_proxy import CuttableProxy
from tests.server.client.run_cli import COMMAND, cli_environment, run_cli, start_cli, wait_for_exit
from tests.upstream import Upstream, stream_response


@slow_async_test
async def test_ask_writes_only_answer_to_stdout(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        result = await run_cli(server.url, "ask", "What is 2+2?", "-m", "m")
    assert (result.code, result.out, result.err) == (0, "What is 2+2?\n", "")


@slow_async_test
async def test_ask_dash_reads_prompt_from_stdin(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        result = await run_cli(
            server.url, "ask", "-", stdin="two\nlines, é\n".encode(), environ={"FORGELINE_MODEL": "m"}
        )
    assert (result.code, result.out) == (0, "two\nlines, é\n")


@slow_async_test
async def test_ask_sends_every_option_to_model(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(plain_picture(8, 8).data)
    options = ["--system", "Be brief.", "--max-tokens", "7", "--temperature", "0.5", "--top-p", "0.9", "--stop", "X"]
    async with (
        Upstream() as upstream,
        running_server(tmp_path, models={"m": upstream_model(upstream.base_url)}) as server,
    ):
        result = await run_cli(
            server.url, "ask", "hi", "-m", "m", "--frame", str(picture), "-i", str(picture), *options
        )
    assert result.code == 0
    body = upstream.requests[0].body
    system, user = body["messages"]
    assert (system["role"], system["content"]) == ("system", "Be brief.")
    assert [part["type"] for part in user["content"]].count("image_url") == 2
    assert (body["max_tokens"], body["temperature"], body["top_p"], body["stop"]) == (7, 0.5, 0.9, ["X"])


@slow_async_test
async def test_ask_flushes_each_chunk_to_pipe(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        Upstream() as upstream,
        running_server(tmp_path, models={"m": upstream_model(upstream.base_url)}) as server,
    ):
        upstream.response = stream_response(["Hello", gate, " world"])
        async with start_cli(server.url, "ask", "hi", "-m", "m") as command:
            assert command.stdout is not None
            assert await command.stdout.read(100) == b"Hello"
            gate.set()
            assert await command.stdout.read() == b" world\n"


@slow_async_test
async def test_ask_several_models_labels_lines_and_exits_1_if_one_fails(tmp_path: Path) -> None:
    models = {
        "one": scripted_model("say:a\nb"),
        "three": scripted_model("say:c"),
        "broken": scripted_model("say:d; fail:model_error"),
    }
    async with running_server(tmp_path, models=models) as server:
        result = await run_cli(server.url, "ask", "hi", "-m", "one", "-m", "three", "-m", "broken")
    assert result.code == 1
    assert sorted(result.out.splitlines()) == ["broken | d", "one    | a", "one    | b", "three  | c"]
    assert result.err == "forgeline: broken: The script says so: model_error.\n"


@slow_async_test
async def test_ask_json_prints_one_event_per_line(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("say:a b")}) as server:
        result = await run_cli(server.url, "ask", "hi", "-m", "m", "--json")
    events = [json.loads(line) for line in result.out.splitlines()]
    assert [event["type"] for event in events] == ["start", "chunk", "chunk", "result", "complete"]
    assert [event["seq"] for event in events] == [0, 1, 2, 3, 4]


@slow_async_test
async def test_ask_api_error_exits_1_with_server_message(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        result = await run_cli(server.url, "ask", "hi", "-m", "nobody")
        as_json = await run_cli(server.url, "ask", "hi", "-m", "nobody", "--json")
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("forgeline: No preset defines a model 'nobody'")
    assert (as_json.code, json.loads(as_json.out)["code"]) == (1, "unknown_model")


@slow_async_test
async def test_api_key_is_read_from_environment_or_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k\n")
    async with running_server(
        tmp_path, models={"m": scripted_model("echo")}, environ={"FORGELINE_API_KEYS": "k"}
    ) as server:
        ask = ["ask", "hi", "-m", "m"]
        by_variable = await run_cli(server.url, *ask, environ={"FORGELINE_API_KEY": "k"})
        by_file = await run_cli(server.url, *ask, "--key-file", str(tmp_path / "key"))
        without = await run_cli(server.url, *ask)
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
@slow_async_test
async def test_usage_error_exits_2_with_reason(arguments: list[str], words: list[str]) -> None:
    result = await run_cli(None, *arguments)
    assert (result.code, result.out) == (2, "")
    assert all(word in result.err for word in words), result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("arguments", [["ask", "hi", "-m", "m"], ["models"], ["deploy", "small"], ["logs", "-f", "x"]])
@slow_async_test
async def test_unreachable_server_exits_3_with_hint(arguments: list[str]) -> None:
    result = await run_cli("http://127.0.0.1:1", *arguments)
    assert (result.code, result.out) == (3, "")
    assert result.err == (
        "forgeline: No server answers at http://127.0.0.1:1 (Connection refused)."
        " `forgeline serve` starts one; --server names another.\n"
    )


@slow_async_test
async def test_server_that_speaks_no_http_exits_3_with_reason() -> None:
    async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n")
        writer.close()

    async with await asyncio.start_server(chatter, "127.0.0.1", 0) as other:
        result = await run_cli(f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}", "models")
    assert (result.code, "does not speak HTTP" in result.err) == (3, True)


# --- interruption -------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@slow_async_test
async def test_ask_signal_stops_stream_on_server(tmp_path: Path, number: int, code: int) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("say:Hello; hang")}) as server:
        async with start_cli(server.url, "ask", "hi", "-m", "m") as command:
            assert command.stdout is not None
            assert await command.stdout.read(100) == b"Hello"
            command.send_signal(number)
            result = await wait_for_exit(command)
        await server.wait_until_idle()
        assert (result.code, result.err, server.scripted.cancelled) == (code, "", 1)


@slow_async_test
async def test_ask_broken_pipe_stops_stream_on_server(tmp_path: Path) -> None:
    async with (
        Upstream() as upstream,
        running_server(tmp_path, models={"m": upstream_model(upstream.base_url)}) as server,
    ):
        gate, never = asyncio.Event(), asyncio.Event()
        upstream.response = stream_response(["Hello", gate, " world", never])
        read_end, write_end = os.pipe()
        async with start_cli(server.url, "ask", "hi", "-m", "m", stdout=write_end) as command:
            os.close(write_end)
            assert await asyncio.to_thread(os.read, read_end, 100) == b"Hello"
            os.close(read_end)
            gate.set()
            result = await wait_for_exit(command)
        await server.wait_until_idle()
    assert (result.code, result.err, upstream.cancelled) == (141, "", 1)


@slow_async_test
async def test_ask_with_closed_standard_streams_exits_0(tmp_path: Path) -> None:
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
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
            env=cli_environment(server.url),
            start_new_session=True,
        )
        assert await child.wait() == 0
        assert server.scripted.calls == 1


# --- reconnecting ---------------------------------------------------------------------


@slow_async_test
async def test_ask_reconnect_resumes_stream_without_second_request(tmp_path: Path) -> None:
    gate = asyncio.Event()
    async with (
        Upstream() as upstream,
        running_server(tmp_path, models={"m": upstream_model(upstream.base_url)}) as server,
        CuttableProxy(server.url) as proxy,
    ):
        upstream.response = stream_response(["Hello", gate, " world"])
        async with start_cli(proxy.url, "ask", "hi", "-m", "m") as command:
            assert command.stdout is not None
            assert await command.stdout.read(100) == b"Hello"
            proxy.is_rejecting = True
            proxy.drop_connections()
            gate.set()
            await spin_until(lambda: proxy.connection_count >= 3)  # it tries
            proxy.is_rejecting = False
            result = await wait_for_exit(command)
    assert (result.code, result.out) == (0, " world\n")
    assert result.err.splitlines() == [
        "forgeline: The connection was lost; reconnecting …",
        "forgeline: The server is back; going on where it stopped.",
    ]
    assert len(upstream.requests) == 1


@slow_async_test
async def test_ask_reconnect_timeout_exits_3(tmp_path: Path) -> None:
    async with (
        running_server(tmp_path, models={"m": scripted_model("say:Hello; hang")}) as server,
        CuttableProxy(server.url) as proxy,
        start_cli(proxy.url, "ask", "hi", "-m", "m", "--reconnect", "0.2") as command,
    ):
        assert command.stdout is not None
        assert await command.stdout.read(100) == b"Hello"
        proxy.is_rejecting = True
        proxy.drop_connections()
        result = await wait_for_exit(command)
    assert (result.code, result.out) == (3, "\n")
    assert result.err.splitlines()[-1].startswith("forgeline: The connection to http://127.0.0.1:")


@slow_async_test
async def test_ask_server_restart_reports_lost_answer_and_exits_1(
    tmp_path: Path,
) -> None:
    models = {"m": scripted_model("say:Hello; hang")}
    async with (
        running_process(tmp_path, models=models) as server,
        start_cli(server.url, "ask", "hi", "-m", "m") as command,
    ):
        assert command.stdout is not None
        assert await command.stdout.read(100) == b"Hello"
        server.child.kill()
        await server.child.wait()
        async with running_process(tmp_path, "--port", server.url.rpartition(":")[2], models=models):
            result = await wait_for_exit(command)
    assert (result.code, result.out) == (1, "\n")
    assert result.err.splitlines()[-1].startswith(
        "forgeline: The rest of the answer is lost; was the server restarted?"
    )
