"""A helper process: it responds, it can be killed, and its death is noticed."""

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

from pipeline.workers.process import HelperDied, HelperProcess
from tests.async_tests import async_test

ROOT = Path(__file__).parents[3]
ECHO = "tests.pipeline.workers.echo"


@asynccontextmanager
async def echo_process() -> AsyncIterator[HelperProcess]:
    helper = HelperProcess(ECHO)
    try:
        yield helper
    finally:
        await helper.close()


def pid_of(helper: HelperProcess) -> int:
    assert helper.pid is not None
    return helper.pid


def process_exists(pid: int) -> bool:
    """Whether the process exists, also as a zombie."""
    return Path(f"/proc/{pid}").exists()


@async_test
async def test_first_message_starts_the_process_and_later_messages_reuse_it() -> None:
    async with echo_process() as helper:
        assert helper.pid is None
        assert (await helper.call({"do": "say", "say": "a"}, 5))["said"] == "a"
        first = helper.pid
        assert (await helper.call({"do": "say", "say": b"\x00" * 5_000_000}, 5))["said"] == b"\x00" * 5_000_000
        assert helper.pid == first


@async_test
async def test_concurrent_requests_share_one_process() -> None:
    async with echo_process() as helper:
        await helper.start()
        responses = await asyncio.gather(*(helper.request({"do": "say", "say": n}, 5) for n in range(50)))
        assert [response["said"] for response in responses] == list(range(50))


@async_test
async def test_concurrent_starts_start_one_process() -> None:
    async with echo_process() as helper:
        assert sorted(await asyncio.gather(helper.start(), helper.start())) == [False, True]


@async_test
async def test_start_creates_no_thread() -> None:
    async with echo_process() as helper:
        before = threading.active_count()
        await helper.start()
        assert threading.active_count() == before


@async_test
async def test_sigkill_fails_all_pending_requests_and_next_message_starts_a_new_process() -> None:
    async with echo_process() as helper:
        await helper.start()
        waiting = [asyncio.create_task(helper.request({"do": "hang"}, 5)) for _ in range(2)]
        await asyncio.sleep(0)
        os.kill(pid := pid_of(helper), signal.SIGKILL)
        for task in waiting:
            with pytest.raises(HelperDied, match=r"echo ended \(signal 9\)"):
                await task
        assert not process_exists(pid)
        assert (await helper.call({"do": "say", "say": "again"}, 5))["said"] == "again"


@async_test
async def test_exit_status_is_reported() -> None:
    async with echo_process() as helper:
        with pytest.raises(HelperDied, match="exit status 3"):
            await helper.call({"do": "exit"}, 5)


@async_test
async def test_timeout_kills_and_reaps_the_process() -> None:
    async with echo_process() as helper:
        await helper.start()
        pid = pid_of(helper)
        with pytest.raises(TimeoutError):
            await helper.request({"do": "hang"}, 0.01)
        assert helper.pid is None
        await helper.close()
        assert not process_exists(pid)


@async_test
async def test_cancelled_request_kills_the_process() -> None:
    async with echo_process() as helper:
        await helper.start()
        request = asyncio.create_task(helper.request({"do": "hang"}, 5))
        await asyncio.sleep(0)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert helper.pid is None


@pytest.mark.filterwarnings("error")
@async_test
async def test_close_leaves_no_process_and_no_descriptor() -> None:
    before = os.listdir("/proc/self/fd")
    async with echo_process() as helper:
        await helper.start()
        pid = pid_of(helper)
        os.kill(pid, signal.SIGSTOP)  # a stopped process can't end by itself
    assert not process_exists(pid)
    assert os.listdir("/proc/self/fd") == before


@async_test
async def test_close_fails_open_exchanges() -> None:
    async with echo_process() as helper:
        await helper.start()
        waiting = helper.start_exchange({"do": "hang"})
        await helper.close()
        with pytest.raises(HelperDied):
            await waiting.read()
        with pytest.raises(HelperDied, match="not running"):
            helper.start_exchange({"do": "say"})


@async_test
async def test_out_of_memory_fails_one_message_only() -> None:
    async with echo_process() as helper:
        assert (await helper.call({"do": "allocate", "bytes": 1_000_000_000}, 5))["error"] == "memory"
        pid = helper.pid
        assert (await helper.call({"do": "allocate", "bytes": 1_000_000}, 5))["allocated"] == 1_000_000
        assert helper.pid == pid


@async_test
async def test_print_in_helper_does_not_corrupt_responses() -> None:
    async with echo_process() as helper:
        assert (await helper.call({"do": "print", "say": 1}, 5))["said"] == 1
        assert (await helper.call({"do": "say", "say": 2}, 5))["said"] == 2


@async_test
async def test_helper_inherits_no_secrets_and_leaves_no_core_dump(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    async with echo_process() as helper:
        description = await helper.call({"do": "describe"}, 5)
    assert "AWS_SECRET_ACCESS_KEY" not in description["environment"]
    assert (description["core"], description["interrupt_ignored"]) == (0, True)


@async_test
async def test_helper_imports_nothing_from_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "msgpack.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    async with echo_process() as helper:
        description = await helper.call({"do": "describe"}, 5)
    assert str(tmp_path) not in description["path"]


PARENT = f"""
import asyncio
from pipeline.workers.process import HelperProcess

async def main():
    helper = HelperProcess({ECHO!r})
    await helper.start()
    print(helper.pid, flush=True)
    await helper.request({{"do": "hang"}}, 60)

asyncio.run(main())
"""


def test_helper_dies_with_its_killed_parent() -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        helper = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    assert ends_within_5_s(helper)


def ends_within_5_s(pidfd: int) -> bool:
    """Whether the process ends within 5 s: then its pidfd becomes readable."""
    try:
        return bool(select.select([pidfd], [], [], 5)[0])
    finally:
        os.close(pidfd)
