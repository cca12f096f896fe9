"""A worker process: it answers, it can be killed, and its death is noticed."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pipeline.workers.process import WorkerDied, WorkerProcess
from tests.aio import asynchronous

ROOT = Path(__file__).parents[3]
ECHO = "tests.pipeline.workers.echo"


@asynccontextmanager
async def echo() -> AsyncIterator[WorkerProcess]:
    worker = WorkerProcess(ECHO)
    try:
        yield worker
    finally:
        await worker.close()


def pid_of(worker: WorkerProcess) -> int:
    assert worker.pid is not None
    return worker.pid


def exists(pid: int) -> bool:
    """Whether there is such a process, be it a zombie."""
    return Path(f"/proc/{pid}").exists()


@asynchronous
async def test_a_worker_is_started_by_the_first_message_and_serves_the_next_ones() -> None:
    async with echo() as worker:
        assert worker.pid is None
        assert (await worker.call({"do": "say", "say": "a"}, 5))["said"] == "a"
        first = worker.pid
        assert (await worker.call({"do": "say", "say": b"\x00" * 5_000_000}, 5))["said"] == b"\x00" * 5_000_000
        assert worker.pid == first


@asynchronous
async def test_several_may_ask_one_worker_at_once() -> None:
    async with echo() as worker:
        await worker.start()
        answers = await asyncio.gather(*(worker.ask({"do": "say", "say": n}, 5) for n in range(50)))
        assert [answer["said"] for answer in answers] == list(range(50))


@asynchronous
async def test_starting_twice_at_once_starts_one_process() -> None:
    async with echo() as worker:
        assert sorted(await asyncio.gather(worker.start(), worker.start())) == [False, True]


@asynchronous
async def test_no_thread_waits_for_a_worker() -> None:
    async with echo() as worker:
        before = threading.active_count()
        await worker.start()
        assert threading.active_count() == before


@asynchronous
async def test_kill_9_is_told_to_everyone_who_waits_and_the_next_message_starts_a_new_worker() -> None:
    async with echo() as worker:
        await worker.start()
        waiting = [asyncio.create_task(worker.ask({"do": "hang"}, 5)) for _ in range(2)]
        await asyncio.sleep(0)
        os.kill(pid := pid_of(worker), signal.SIGKILL)
        for task in waiting:
            with pytest.raises(WorkerDied, match=r"echo ended \(signal 9\)"):
                await task
        assert not exists(pid)
        assert (await worker.call({"do": "say", "say": "again"}, 5))["said"] == "again"


@asynchronous
async def test_a_worker_that_exits_says_with_what() -> None:
    async with echo() as worker:
        with pytest.raises(WorkerDied, match="exit status 3"):
            await worker.call({"do": "exit"}, 5)


@asynchronous
async def test_a_worker_that_does_not_answer_in_time_is_killed_and_reaped() -> None:
    async with echo() as worker:
        await worker.start()
        pid = pid_of(worker)
        with pytest.raises(TimeoutError):
            await worker.ask({"do": "hang"}, 0.01)
        assert worker.pid is None
        await worker.close()
        assert not exists(pid)


@asynchronous
async def test_a_worker_whose_asker_is_cancelled_is_killed() -> None:
    async with echo() as worker:
        await worker.start()
        asking = asyncio.create_task(worker.ask({"do": "hang"}, 5))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert worker.pid is None


@pytest.mark.filterwarnings("error")
@asynchronous
async def test_close_leaves_no_process_and_no_descriptor() -> None:
    before = os.listdir("/proc/self/fd")
    async with echo() as worker:
        await worker.start()
        pid = pid_of(worker)
        os.kill(pid, signal.SIGSTOP)  # one that can't even end by itself
    assert not exists(pid)
    assert os.listdir("/proc/self/fd") == before


@asynchronous
async def test_close_ends_those_who_still_wait() -> None:
    async with echo() as worker:
        await worker.start()
        waiting = worker.open({"do": "hang"})
        await worker.close()
        with pytest.raises(WorkerDied):
            await waiting.read()
        with pytest.raises(WorkerDied, match="not running"):
            worker.open({"do": "say"})


@asynchronous
async def test_running_out_of_memory_costs_one_message_only() -> None:
    async with echo() as worker:
        assert (await worker.call({"do": "take", "bytes": 1_000_000_000}, 5))["error"] == "memory"
        pid = worker.pid
        assert (await worker.call({"do": "take", "bytes": 1_000_000}, 5))["taken"] == 1_000_000
        assert worker.pid == pid


@asynchronous
async def test_what_a_library_prints_does_not_disturb_the_answers() -> None:
    async with echo() as worker:
        assert (await worker.call({"do": "print", "say": 1}, 5))["said"] == 1
        assert (await worker.call({"do": "say", "say": 2}, 5))["said"] == 2


@asynchronous
async def test_a_worker_gets_no_secrets_and_leaves_no_dump(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    async with echo() as worker:
        about = await worker.call({"do": "describe"}, 5)
    assert "AWS_SECRET_ACCESS_KEY" not in about["environment"]
    assert (about["core"], about["interrupt_ignored"]) == (0, True)


@asynchronous
async def test_a_worker_starts_from_any_folder_and_takes_no_modules_from_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "msgpack.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    async with echo() as worker:
        about = await worker.call({"do": "describe"}, 5)
    assert str(tmp_path) not in about["path"]


PARENT = f"""
import asyncio
from pipeline.workers.process import WorkerProcess

async def main():
    worker = WorkerProcess({ECHO!r})
    await worker.start()
    print(worker.pid, flush=True)
    await worker.ask({{"do": "hang"}}, 60)

asyncio.run(main())
"""


def test_a_worker_dies_with_a_parent_that_is_killed() -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        worker = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    assert ends_soon(worker)


def ends_soon(pidfd: int) -> bool:
    """Whether the process ends within 5 s: its pidfd becomes readable."""
    try:
        return bool(select.select([pidfd], [], [], 5)[0])
    finally:
        os.close(pidfd)
