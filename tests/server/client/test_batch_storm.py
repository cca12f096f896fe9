"""A large batch against a model that throttles, stalls and fails; the client is killed three times."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path

import pytest

from tests.async_tests import wait_until
from tests.processes import running_process
from tests.running_server import scripted_model
from tests.server.client.run_cli import start_cli, wait_for_exit

LINE_COUNT = 10_000
RECORD_BYTES = 400  # bytes, about
SCRIPT = "; ".join(
    [
        "perhaps:0.05,fail:rate_limited",
        "perhaps:0.02,hang",
        "perhaps:0.05,fail:model_error",
        "perhaps:0.02,fail:unavailable",
        "perhaps:0.01,fail:invalid_request",
        "echo",
        "perhaps:0.02,fail:model_error",
        "usage:1,1",
    ]
)


@pytest.mark.slow
def test_batch_of_10000_lines_killed_three_times_answers_each_exactly_once(tmp_path: Path) -> None:
    asyncio.run(run_killed_batches(tmp_path))


async def run_killed_batches(folder: Path) -> None:
    source, target = folder / "in.jsonl", folder / "out.jsonl"
    source.write_text(
        "".join(f'{{"id": "q{number}", "text": "question {number}"}}\n' for number in range(1, LINE_COUNT + 1))
    )
    options = ["-m", "m", "-c", "64", "--timeout", "1"]
    command = ["batch", str(source), str(target), *options]
    async with running_process(folder, "--log-format", "json", models={"m": scripted_model(SCRIPT)}) as server:
        draining = asyncio.create_task(_discard(server.child.stderr))
        for kill in range(1, 4):
            async with start_cli(server.url, *command) as client:
                await wait_until(partial(_is_larger_than, target, kill * LINE_COUNT // 4 * RECORD_BYTES))
                client.kill()
                await client.wait()
        async with start_cli(server.url, *command) as client:
            last = await wait_for_exit(client)
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)
    records = [json.loads(line) for line in target.read_text().splitlines()]
    assert sorted(record["line"] for record in records) == list(range(1, LINE_COUNT + 1))
    answered = [record for record in records if "error" not in record]
    failed = [record for record in records if "error" in record]
    assert {record["code"] for record in failed} == {"invalid_request"}
    assert last.code == 1
    assert f"{LINE_COUNT} lines: {len(answered)} answered, {len(failed)} failed" in last.err
    for record in answered:
        assert record["id"] == f"q{record['line']}"
        assert record["response"]["content"][0]["text"] == f"question {record['line']}"
    assert 0 < len(failed) < LINE_COUNT * 0.03


def _is_larger_than(target: Path, size: int) -> bool:
    return target.exists() and target.stat().st_size > size


async def _discard(log: asyncio.StreamReader | None) -> None:
    """Read a log to its end: a full pipe would block the server."""
    while log is not None and await log.read(65536):
        pass
