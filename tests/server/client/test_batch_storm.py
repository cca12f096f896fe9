"""A large batch against a model that throttles, stalls and fails, killed three times on the way."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path

import pytest

from tests.aio import comes_true
from tests.processes import running
from tests.server.client.commands import ended, started
from tests.serving import says

LINES = 10_000
RECORD = 400  # bytes, about
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
def test_ten_thousand_lines_killed_three_times_end_with_each_exactly_once(tmp_path: Path) -> None:
    asyncio.run(storm(tmp_path))


async def storm(folder: Path) -> None:
    source, target = folder / "in.jsonl", folder / "out.jsonl"
    source.write_text(
        "".join(f'{{"id": "q{number}", "text": "question {number}"}}\n' for number in range(1, LINES + 1))
    )
    options = ["-m", "m", "-c", "64", "--timeout", "1"]
    command = ["batch", str(source), str(target), *options]
    async with running(folder, "--log-format", "json", models={"m": says(SCRIPT)}) as server:
        draining = asyncio.create_task(_drained(server.child.stderr))
        for kill in range(1, 4):
            async with started(server.url, *command) as client:
                await comes_true(partial(_has, target, kill * LINES // 4 * RECORD))
                client.kill()
                await client.wait()
        async with started(server.url, *command) as client:
            last = await ended(client)
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)
    records = [json.loads(line) for line in target.read_text().splitlines()]
    assert sorted(record["line"] for record in records) == list(range(1, LINES + 1))
    answered = [record for record in records if "error" not in record]
    failed = [record for record in records if "error" in record]
    assert {record["code"] for record in failed} == {"invalid_request"}
    assert last.code == 1
    assert f"{LINES} lines: {len(answered)} answered, {len(failed)} failed" in last.err
    for record in answered:
        assert record["id"] == f"q{record['line']}"
        assert record["response"]["content"][0]["text"] == f"question {record['line']}"
    assert 0 < len(failed) < LINES * 0.03


def _has(target: Path, size: int) -> bool:
    return target.exists() and target.stat().st_size > size


async def _drained(log: asyncio.StreamReader | None) -> None:
    """A pipe that nobody reads would stop the server in time."""
    while log is not None and await log.read(65536):
        pass
