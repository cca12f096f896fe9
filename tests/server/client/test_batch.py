"""`forgeline batch`: every line answered once, and what the records say."""

from __future__ import annotations

import asyncio
import fcntl
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.aio import comes_true, unhurried
from tests.pipeline.drawn import plain
from tests.processes import Ended, running
from tests.server.client.commands import ended, started, terminal, typed
from tests.serving import Server, asks, says, serving
from tests.upstream import Upstream, refusal, stream_of


class Batch:
    """The files of one batch, in a folder."""

    def __init__(self, folder: Path, lines: Sequence[Any] = ()) -> None:
        self.source, self.target = folder / "in.jsonl", folder / "out.jsonl"
        self.write(lines)

    def write(self, lines: Sequence[Any]) -> None:
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        self.source.write_text("".join(f"{text}\n" for text in texts))

    def command(self, *options: str) -> list[str]:
        return ["batch", str(self.source), str(self.target), *options]

    async def run(self, server: Server, *options: str) -> Ended:
        return await typed(server.url, *self.command(*options))

    @property
    def records(self) -> list[dict[str, Any]]:
        """By line."""
        records = [json.loads(line) for line in self.target.read_text().splitlines()]
        return sorted(records, key=lambda record: record["line"])

    @property
    def texts(self) -> list[str]:
        return [record["response"]["content"][0]["text"] for record in self.records]


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"id": f"q{number}", "text": f"question {number}"} for number in range(1, count + 1)]


@unhurried
async def test_every_line_has_its_record(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [*numbered(20), "", {"text": "a picture", "frames": [plain(8, 8).as_base64()]}])
    async with serving(tmp_path, models={"m": says("echo; usage:1,2")}) as server:
        done = await batch.run(server, "--model", "m")
        assert server.scripted.calls == 21
    assert (done.code, done.out) == (0, "")
    assert done.err == "forgeline: 21 lines: 21 answered, 0 failed\n"
    assert [record["line"] for record in batch.records] == [*range(1, 21), 22]
    assert batch.texts == [*(f"question {number}" for number in range(1, 21)), "a picture"]
    assert batch.records[0]["id"] == "q1"
    assert batch.records[0]["response"]["usage"] == {"input_tokens": 1, "output_tokens": 2}
    assert batch.records[0]["metadata"]["request_id"]


@unhurried
async def test_lines_may_name_their_models_and_an_option_goes_before_them(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [{"text": "hi", "model": "a"}, {"text": "hi", "model": "b"}, {"text": "hi"}])
    async with serving(tmp_path, models={"a": says("say:from a"), "b": says("say:from b")}) as server:
        done = await batch.run(server)
        assert done.code == 1
        assert [record.get("model") for record in batch.records] == ["a", "b", None]
        assert "--model" in batch.records[2]["error"]
        batch.target.unlink()
        assert (await batch.run(server, "-m", "b")).code == 0
    assert batch.texts == ["from b"] * 3


@unhurried
async def test_lines_that_fail_are_recorded_with_error_and_code_and_the_others_go_on(tmp_path: Path) -> None:
    wrong = ["[]", '{"text": ', '{"text": "\xff"}', {"text": "x", "nope": 1}, {"text": "x", "model": "nobody", "id": 7}]
    batch = Batch(tmp_path, [*wrong, {"text": "good", "model": "m"}])
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        done = await batch.run(server)
    assert (done.code, done.err.split(";")[0]) == (1, "forgeline: 6 lines: 1 answered, 5 failed")
    codes = [record.get("code") for record in batch.records]
    assert codes == ["invalid_line", "invalid_line", "invalid_line", "invalid_line", "unknown_model", None]
    assert batch.records[4]["id"] == 7
    assert all(record["error"] for record in batch.records[:5])


@unhurried
async def test_no_more_requests_are_under_way_than_asked_for(tmp_path: Path) -> None:
    batch = Batch(tmp_path, numbered(20))
    gate = asyncio.Event()
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server:
        up.answer = stream_of([gate, "yes"])
        async with started(server.url, *batch.command("-m", "m", "-c", "3")) as command:
            await up.asked(3)
            gate.set()
            assert (await ended(command)).code == 0
    assert (len(up.requests), up.most) == (20, 3)


@unhurried
async def test_a_throttled_line_comes_again_not_before_it_was_asked_to(tmp_path: Path) -> None:
    batch = Batch(tmp_path, numbered(1))
    loop = asyncio.get_running_loop()
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server:
        up.answer = refusal(429, "slow down", headers={"Retry-After": "1"})
        async with started(server.url, *batch.command("-m", "m")) as command:
            await up.asked(1)
            await up.idle()
            refused_at = loop.time()
            up.answer = stream_of(["yes"])
            await up.asked(2)
            waited = loop.time() - refused_at
            assert (await ended(command)).code == 0
    assert 0.9 < waited < 3
    assert batch.texts == ["yes"]


@unhurried
async def test_retries_have_an_end_and_what_cannot_pass_is_not_tried_again(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [{"text": "x", "model": "failing"}, {"text": "x", "model": "refusing"}])
    models = {"failing": says("fail:model_error"), "refusing": says("fail:invalid_request")}
    async with serving(tmp_path, models=models) as server:
        assert (await batch.run(server, "--retries", "1")).code == 1
        assert server.scripted.calls == 3
    assert [record["code"] for record in batch.records] == ["model_error", "invalid_request"]


@unhurried
async def test_a_line_that_stalls_is_given_up_in_time(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [{"text": "x", "model": "stalled"}, {"text": "x", "model": "m"}])
    async with serving(tmp_path, models={"stalled": says("hang"), "m": says("echo")}) as server:
        assert (await batch.run(server, "--timeout", "0.2", "--retries", "0")).code == 1
        await server.ended()
        assert server.scripted.cancelled == 1
    assert batch.records[0]["code"] == "timed_out"


@unhurried
async def test_failed_lines_are_tried_again_only_where_that_is_asked_for(tmp_path: Path) -> None:
    batch = Batch(tmp_path, [{"text": "x", "model": "m"}, {"text": "x", "model": "late"}])
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        assert (await batch.run(server)).code == 1
    async with serving(tmp_path, models={"m": says("echo"), "late": says("echo")}) as server:
        again = await batch.run(server)
        assert (again.code, server.scripted.calls) == (1, 0)
        retried = await batch.run(server, "--retry-failed")
        assert (retried.code, server.scripted.calls) == (0, 1)
    assert batch.texts == ["x", "x"]
    assert not (tmp_path / "out.jsonl.new").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@unhurried
async def test_the_same_command_goes_on_where_it_was_stopped(tmp_path: Path, number: int) -> None:
    batch = Batch(tmp_path, numbered(30))
    never = asyncio.Event()
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server:
        async with started(server.url, *batch.command("-m", "m", "-c", "1")) as command:
            await up.asked(10)
            up.answer = stream_of([never])
            await up.asked(len(up.requests) + 1)
            command.send_signal(number)
            stopped = await ended(command)
        done = len(batch.records)
        assert 9 <= done < 30
        if number != signal.SIGKILL:
            assert stopped.code == 128 + number
            assert f"stopped with {done} of 30 lines done; the same command goes on there" in stopped.err
        up.answer = stream_of(["yes"])
        again = await batch.run(server, "-m", "m")
    assert again.code == 0
    assert again.err.startswith(f"forgeline: {done} of 30 lines are done already")
    assert [record["line"] for record in batch.records] == list(range(1, 31))


@unhurried
async def test_a_record_that_was_half_written_is_cut_off_and_its_line_done_again(tmp_path: Path) -> None:
    batch = Batch(tmp_path, numbered(3))
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        assert (await batch.run(server, "-m", "m", "-c", "1")).code == 0
        whole = batch.target.read_bytes()
        for cut in (1, 5, len(whole.splitlines()[2]), len(whole.splitlines()[2]) + 1):
            batch.target.write_bytes(whole[:-cut])
            assert (await batch.run(server, "-m", "m")).code == 0
            assert batch.texts == ["question 1", "question 2", "question 3"]


@pytest.mark.parametrize("content", ["something else\n", "no end", '{"line":1}\n', "[]\n", '{"line":0,"input":"01"}\n'])
@unhurried
async def test_a_file_that_is_no_output_of_a_batch_is_left_alone(tmp_path: Path, content: str) -> None:
    batch = Batch(tmp_path, numbered(1))
    batch.target.write_text(content)
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        done = await batch.run(server, "-m", "m")
    assert (done.code, batch.target.read_text()) == (2, content)
    assert "is not the output of a batch" in done.err


@unhurried
async def test_an_input_that_has_changed_since_is_found_out(tmp_path: Path) -> None:
    batch = Batch(tmp_path, numbered(3))
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        assert (await batch.run(server, "-m", "m")).code == 0
        batch.write(numbered(4)[1:])
        changed = await batch.run(server, "-m", "m")
        batch.write(numbered(4))
        grown = await batch.run(server, "-m", "m")
    assert changed.code == 2
    assert "Line 1 of the input is not the one" in changed.err
    assert (grown.code, len(batch.texts)) == (0, 4)


@unhurried
async def test_two_batches_never_write_to_one_output(tmp_path: Path) -> None:
    batch = Batch(tmp_path, numbered(1))
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        with batch.target.open("ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            second = await batch.run(server, "-m", "m")
        same = await typed(server.url, "batch", str(batch.source), str(batch.source), "-m", "m")
    assert (second.code, same.code) == (2, 2)
    assert "Another batch is writing to" in second.err
    assert "are one file" in same.err
    assert batch.target.read_bytes() == b""


@unhurried
async def test_what_would_be_wrong_with_every_line_is_told_before_any(tmp_path: Path) -> None:
    batch = Batch(tmp_path, numbered(3))
    async with serving(tmp_path, models={"m": says("echo")}, environ={"FORGELINE_API_KEYS": "k"}) as server:
        locked = await batch.run(server, "-m", "m")
        unknown = await typed(server.url, *batch.command("-m", "n"), environ={"FORGELINE_API_KEY": "k"})
    absent = await typed("http://127.0.0.1:1", *batch.command("-m", "m"))
    assert (locked.code, unknown.code, absent.code) == (1, 2, 3)
    assert "has no model 'n'; it has m" in unknown.err
    assert not batch.target.exists()


@unhurried
async def test_a_server_that_is_killed_and_restarted_costs_no_line(tmp_path: Path) -> None:
    batch = Batch(tmp_path, numbered(200))
    models = {"m": says("pause:0.002; echo")}
    async with (
        running(tmp_path, models=models) as first,
        started(first.url, *batch.command("-m", "m", "-c", "4")) as command,
    ):
        await comes_true(lambda: batch.target.exists() and batch.target.stat().st_size > 20_000)
        first.child.kill()
        await first.child.wait()
        async with running(tmp_path, "--port", first.url.rpartition(":")[2], models=models):
            done = await ended(command)
    assert done.code == 0, done.err
    assert batch.texts == [line["text"] for line in numbered(200)]


@unhurried
async def test_a_server_that_does_not_come_back_is_exit_3_and_no_line_counts_as_failed(tmp_path: Path) -> None:
    batch = Batch(tmp_path, numbered(5000))
    async with (
        running(tmp_path, models={"m": says("echo")}) as server,
        started(server.url, *batch.command("-m", "m", "--reconnect", "0.3")) as command,
    ):
        await comes_true(lambda: batch.target.exists() and batch.target.stat().st_size > 2000)
        server.child.kill()
        done = await ended(command)
    assert done.code == 3
    assert "error" not in batch.target.read_text()


@unhurried
async def test_a_terminal_shows_a_bar_with_rate_and_time_left_and_json_is_the_sum(tmp_path: Path) -> None:
    batch = Batch(tmp_path, numbered(20))
    async with serving(tmp_path, models={"m": says("pause:0.02; echo")}) as server:
        async with terminal(server.url, *batch.command("-m", "m", "-c", "1"), width=100) as screen:
            await screen.shows("20/20")
            assert await screen.exit_code() == 0
        summed = await batch.run(server, "-m", "m", "--json")
    assert "/s" in screen.raw
    assert "0:00:00" in screen.raw
    assert json.loads(summed.out) == {"lines": 20, "answered": 20, "failed": 0, "done_before": 20}
