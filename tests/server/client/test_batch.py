"""`forgeline batch`: one record per line, retries, resuming and errors."""

from __future__ import annotations

import asyncio
import fcntl
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.async_tests import slow_async_test, wait_until
from tests.pipeline.media.make_pictures import plain_picture
from tests.processes import ProcessResult, running_process
from tests.running_server import RunningServer, running_server, scripted_model, upstream_model
from tests.server.client.run_cli import open_terminal, run_cli, start_cli, wait_for_exit
from tests.upstream import Upstream, error_response, stream_response


class BatchFixture:
    """The input and output files of one batch."""

    def __init__(self, folder: Path, lines: Sequence[Any] = ()) -> None:
        self.source, self.target = folder / "in.jsonl", folder / "out.jsonl"
        self.write_lines(lines)

    def write_lines(self, lines: Sequence[Any]) -> None:
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        self.source.write_text("".join(f"{text}\n" for text in texts))

    def command(self, *options: str) -> list[str]:
        return ["batch", str(self.source), str(self.target), *options]

    async def run(self, server: RunningServer, *options: str) -> ProcessResult:
        return await run_cli(server.url, *self.command(*options))

    @property
    def records(self) -> list[dict[str, Any]]:
        """Ordered by line."""
        records = [json.loads(line) for line in self.target.read_text().splitlines()]
        return sorted(records, key=lambda record: record["line"])

    @property
    def texts(self) -> list[str]:
        return [record["response"]["content"][0]["text"] for record in self.records]


def numbered_lines(count: int) -> list[dict[str, Any]]:
    return [{"id": f"q{number}", "text": f"question {number}"} for number in range(1, count + 1)]


@slow_async_test
async def test_batch_writes_one_record_per_line(tmp_path: Path) -> None:
    batch = BatchFixture(
        tmp_path, [*numbered_lines(20), "", {"text": "a picture", "frames": [plain_picture(8, 8).as_base64()]}]
    )
    async with running_server(tmp_path, models={"m": scripted_model("echo; usage:1,2")}) as server:
        result = await batch.run(server, "--model", "m")
        assert server.scripted.calls == 21
    assert (result.code, result.out) == (0, "")
    assert result.err == "forgeline: 21 lines: 21 answered, 0 failed\n"
    assert [record["line"] for record in batch.records] == [*range(1, 21), 22]
    assert batch.texts == [*(f"question {number}" for number in range(1, 21)), "a picture"]
    assert batch.records[0]["id"] == "q1"
    assert batch.records[0]["response"]["usage"] == {"input_tokens": 1, "output_tokens": 2}
    assert batch.records[0]["metadata"]["request_id"]


@slow_async_test
async def test_batch_model_option_overrides_model_of_line(tmp_path: Path) -> None:
    batch = BatchFixture(tmp_path, [{"text": "hi", "model": "a"}, {"text": "hi", "model": "b"}, {"text": "hi"}])
    async with running_server(
        tmp_path, models={"a": scripted_model("say:from a"), "b": scripted_model("say:from b")}
    ) as server:
        result = await batch.run(server)
        assert result.code == 1
        assert [record.get("model") for record in batch.records] == ["a", "b", None]
        assert "--model" in batch.records[2]["error"]
        batch.target.unlink()
        assert (await batch.run(server, "-m", "b")).code == 0
    assert batch.texts == ["from b"] * 3


@slow_async_test
async def test_batch_failed_lines_are_recorded_with_code_and_others_continue(tmp_path: Path) -> None:
    invalid = [
        "[]",
        '{"text": ',
        '{"text": "\xff"}',
        {"text": "x", "nope": 1},
        {"text": "x", "model": "nobody", "id": 7},
    ]
    batch = BatchFixture(tmp_path, [*invalid, {"text": "good", "model": "m"}])
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        result = await batch.run(server)
    assert (result.code, result.err.split(";")[0]) == (1, "forgeline: 6 lines: 1 answered, 5 failed")
    codes = [record.get("code") for record in batch.records]
    assert codes == ["invalid_line", "invalid_line", "invalid_line", "invalid_line", "unknown_model", None]
    assert batch.records[4]["id"] == 7
    assert all(record["error"] for record in batch.records[:5])


@slow_async_test
async def test_batch_concurrency_limits_requests_in_flight(tmp_path: Path) -> None:
    batch = BatchFixture(tmp_path, numbered_lines(20))
    gate = asyncio.Event()
    async with (
        Upstream() as upstream,
        running_server(tmp_path, models={"m": upstream_model(upstream.base_url)}) as server,
    ):
        upstream.response = stream_response([gate, "yes"])
        async with start_cli(server.url, *batch.command("-m", "m", "-c", "3")) as command:
            await upstream.wait_for_requests(3)
            gate.set()
            assert (await wait_for_exit(command)).code == 0
    assert (len(upstream.requests), upstream.max_in_flight) == (20, 3)


@slow_async_test
async def test_batch_rate_limited_line_waits_for_retry_after(tmp_path: Path) -> None:
    batch = BatchFixture(tmp_path, numbered_lines(1))
    loop = asyncio.get_running_loop()
    async with (
        Upstream() as upstream,
        running_server(tmp_path, models={"m": upstream_model(upstream.base_url)}) as server,
    ):
        upstream.response = error_response(429, "slow down", headers={"Retry-After": "1"})
        async with start_cli(server.url, *batch.command("-m", "m")) as command:
            await upstream.wait_for_requests(1)
            await upstream.wait_until_idle()
            refused_at = loop.time()
            upstream.response = stream_response(["yes"])
            await upstream.wait_for_requests(2)
            waited = loop.time() - refused_at
            assert (await wait_for_exit(command)).code == 0
    assert 0.9 < waited < 3
    assert batch.texts == ["yes"]


@slow_async_test
async def test_batch_retries_are_limited_and_permanent_errors_not_retried(tmp_path: Path) -> None:
    batch = BatchFixture(tmp_path, [{"text": "x", "model": "failing"}, {"text": "x", "model": "refusing"}])
    models = {"failing": scripted_model("fail:model_error"), "refusing": scripted_model("fail:invalid_request")}
    async with running_server(tmp_path, models=models) as server:
        assert (await batch.run(server, "--retries", "1")).code == 1
        assert server.scripted.calls == 3
    assert [record["code"] for record in batch.records] == ["model_error", "invalid_request"]


@slow_async_test
async def test_batch_timeout_fails_stalled_line(tmp_path: Path) -> None:
    batch = BatchFixture(tmp_path, [{"text": "x", "model": "stalled"}, {"text": "x", "model": "m"}])
    async with running_server(
        tmp_path, models={"stalled": scripted_model("hang"), "m": scripted_model("echo")}
    ) as server:
        assert (await batch.run(server, "--timeout", "0.2", "--retries", "0")).code == 1
        await server.wait_until_idle()
        assert server.scripted.cancelled == 1
    assert batch.records[0]["code"] == "timed_out"


@slow_async_test
async def test_batch_retry_failed_option_retries_failed_lines_only(tmp_path: Path) -> None:
    batch = BatchFixture(tmp_path, [{"text": "x", "model": "m"}, {"text": "x", "model": "late"}])
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        assert (await batch.run(server)).code == 1
    async with running_server(tmp_path, models={"m": scripted_model("echo"), "late": scripted_model("echo")}) as server:
        second_run = await batch.run(server)
        assert (second_run.code, server.scripted.calls) == (1, 0)
        retried = await batch.run(server, "--retry-failed")
        assert (retried.code, server.scripted.calls) == (0, 1)
    assert batch.texts == ["x", "x"]
    assert not (tmp_path / "out.jsonl.new").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@slow_async_test
async def test_batch_stopped_by_signal_resumes_with_same_command(tmp_path: Path, number: int) -> None:
    batch = BatchFixture(tmp_path, numbered_lines(30))
    never = asyncio.Event()
    async with (
        Upstream() as upstream,
        running_server(tmp_path, models={"m": upstream_model(upstream.base_url)}) as server,
    ):
        async with start_cli(server.url, *batch.command("-m", "m", "-c", "1")) as command:
            await upstream.wait_for_requests(10)
            upstream.response = stream_response([never])
            await upstream.wait_for_requests(len(upstream.requests) + 1)
            command.send_signal(number)
            stopped = await wait_for_exit(command)
        completed = len(batch.records)
        assert 9 <= completed < 30
        if number != signal.SIGKILL:
            assert stopped.code == 128 + number
            assert f"stopped with {completed} of 30 lines done; the same command goes on there" in stopped.err
        upstream.response = stream_response(["yes"])
        second_run = await batch.run(server, "-m", "m")
    assert second_run.code == 0
    assert second_run.err.startswith(f"forgeline: {completed} of 30 lines are done already")
    assert [record["line"] for record in batch.records] == list(range(1, 31))


@slow_async_test
async def test_batch_truncated_record_is_removed_and_line_answered_again(tmp_path: Path) -> None:
    batch = BatchFixture(tmp_path, numbered_lines(3))
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        assert (await batch.run(server, "-m", "m", "-c", "1")).code == 0
        whole = batch.target.read_bytes()
        for removed_bytes in (1, 5, len(whole.splitlines()[2]), len(whole.splitlines()[2]) + 1):
            batch.target.write_bytes(whole[:-removed_bytes])
            assert (await batch.run(server, "-m", "m")).code == 0
            assert batch.texts == ["question 1", "question 2", "question 3"]


@pytest.mark.parametrize("content", ["something else\n", "no end", '{"line":1}\n', "[]\n", '{"line":0,"input":"01"}\n'])
@slow_async_test
async def test_batch_foreign_output_file_exits_2_and_is_unchanged(tmp_path: Path, content: str) -> None:
    batch = BatchFixture(tmp_path, numbered_lines(1))
    batch.target.write_text(content)
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        result = await batch.run(server, "-m", "m")
    assert (result.code, batch.target.read_text()) == (2, content)
    assert "is not the output of a batch" in result.err


@slow_async_test
async def test_batch_changed_input_exits_2_and_grown_input_resumes(tmp_path: Path) -> None:
    batch = BatchFixture(tmp_path, numbered_lines(3))
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        assert (await batch.run(server, "-m", "m")).code == 0
        batch.write_lines(numbered_lines(4)[1:])
        changed = await batch.run(server, "-m", "m")
        batch.write_lines(numbered_lines(4))
        grown = await batch.run(server, "-m", "m")
    assert changed.code == 2
    assert "Line 1 of the input is not the one" in changed.err
    assert (grown.code, len(batch.texts)) == (0, 4)


@slow_async_test
async def test_batch_locked_output_or_output_equal_to_input_exits_2(tmp_path: Path) -> None:
    batch = BatchFixture(tmp_path, numbered_lines(1))
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        with batch.target.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            locked = await batch.run(server, "-m", "m")
        same_file = await run_cli(server.url, "batch", str(batch.source), str(batch.source), "-m", "m")
    assert (locked.code, same_file.code) == (2, 2)
    assert "Another batch is writing to" in locked.err
    assert "are one file" in same_file.err
    assert batch.target.read_bytes() == b""


@slow_async_test
async def test_batch_fails_early_on_missing_key_unknown_model_or_no_server(tmp_path: Path) -> None:
    batch = BatchFixture(tmp_path, numbered_lines(3))
    async with running_server(
        tmp_path, models={"m": scripted_model("echo")}, environ={"FORGELINE_API_KEYS": "k"}
    ) as server:
        no_key = await batch.run(server, "-m", "m")
        unknown_model = await run_cli(server.url, *batch.command("-m", "n"), environ={"FORGELINE_API_KEY": "k"})
    no_server = await run_cli("http://127.0.0.1:1", *batch.command("-m", "m"))
    assert (no_key.code, unknown_model.code, no_server.code) == (1, 2, 3)
    assert "has no model 'n'; it has m" in unknown_model.err
    assert not batch.target.exists()


@slow_async_test
async def test_batch_server_restart_loses_no_line(tmp_path: Path) -> None:
    batch = BatchFixture(tmp_path, numbered_lines(200))
    models = {"m": scripted_model("pause:0.002; echo")}
    async with (
        running_process(tmp_path, models=models) as first,
        start_cli(first.url, *batch.command("-m", "m", "-c", "4")) as command,
    ):
        await wait_until(lambda: batch.target.exists() and batch.target.stat().st_size > 20_000)
        first.child.kill()
        await first.child.wait()
        async with running_process(tmp_path, "--port", first.url.rpartition(":")[2], models=models):
            result = await wait_for_exit(command)
    assert result.code == 0, result.err
    assert batch.texts == [line["text"] for line in numbered_lines(200)]


@slow_async_test
async def test_batch_reconnect_timeout_exits_3_without_failed_lines(tmp_path: Path) -> None:
    batch = BatchFixture(tmp_path, numbered_lines(5000))
    async with (
        running_process(tmp_path, models={"m": scripted_model("echo")}) as server,
        start_cli(server.url, *batch.command("-m", "m", "--reconnect", "0.3")) as command,
    ):
        await wait_until(lambda: batch.target.exists() and batch.target.stat().st_size > 2000)
        server.child.kill()
        result = await wait_for_exit(command)
    assert result.code == 3
    assert "error" not in batch.target.read_text()


@slow_async_test
async def test_batch_shows_progress_bar_at_terminal_and_totals_as_json(tmp_path: Path) -> None:
    batch = BatchFixture(tmp_path, numbered_lines(20))
    async with running_server(tmp_path, models={"m": scripted_model("pause:0.02; echo")}) as server:
        async with open_terminal(server.url, *batch.command("-m", "m", "-c", "1"), width=100) as screen:
            await screen.wait_for_output("20/20")
            assert await screen.exit_code() == 0
        result = await batch.run(server, "-m", "m", "--json")
    assert "/s" in screen.raw
    assert "0:00:00" in screen.raw
    assert json.loads(result.out) == {"lines": 20, "answered": 20, "failed": 0, "done_before": 20}
