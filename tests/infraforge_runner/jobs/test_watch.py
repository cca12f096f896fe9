"""Watched files: each kind of change triggers a call soon, and a burst few calls."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from infraforge_runner.jobs.watch import Watch, Watcher
from tests.async_tests import async_test, wait_until

SOON = 1.0  # seconds
NEVER = 1000.0


class CallCounter:
    """Counts calls, and lets a test wait for the next one."""

    watch: Watch

    def __init__(self) -> None:
        self.count = 0
        self.error: Exception | None = None
        self._changed = asyncio.Event()

    async def on_change(self) -> None:
        self.count += 1
        self._changed.set()
        if self.error is not None:
            raise self.error

    async def next(self, seconds: float = SOON) -> None:
        self._changed.clear()
        async with asyncio.timeout(seconds):
            await self._changed.wait()


@asynccontextmanager
async def open_watch(
    *paths: Path, poll_interval: float = NEVER, only_writes: bool = False
) -> AsyncIterator[CallCounter]:
    """A watch that is triggered by events alone, unless `poll_interval` is given."""
    calls = CallCounter()
    watcher = Watcher()
    calls.watch = Watch(watcher, paths, calls.on_change, poll_interval=poll_interval, only_writes=only_writes)
    calls.watch.start()
    try:
        yield calls
    finally:
        await calls.watch.close()
        watcher.close()


def rename_over(path: Path) -> None:
    (path.parent / ".new").write_text("new")
    (path.parent / ".new").replace(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "written in place": lambda path: path.write_text("new"),
    "appended to": lambda path: os.write(os.open(path, os.O_APPEND | os.O_WRONLY), b"x"),
    "renamed over": rename_over,
    "deleted": lambda path: path.unlink(),
    "moved away": lambda path: path.rename(path.parent.parent / "away"),
    "made": lambda path: (path.parent / "other.yaml").write_text("x"),
    "linked": lambda path: (path.parent / "link.yaml").symlink_to(path),
    "its folder renamed": lambda path: path.parent.rename(path.parent.parent / "other"),
    "its folder deleted": lambda path: shutil.rmtree(path.parent),
    "touched": lambda path: os.utime(path, (5, 5)),
}


@pytest.mark.parametrize("change", CHANGES)
@async_test
async def test_change_triggers_call_soon(tmp_path: Path, change: str) -> None:
    path = tmp_path / "root" / "folder" / "file.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("old")
    async with open_watch(tmp_path / "root") as calls:
        CHANGES[change](path)
        await calls.next()


@async_test
async def test_new_folder_is_watched(tmp_path: Path) -> None:
    async with open_watch(tmp_path) as calls:
        (tmp_path / "a" / "b").mkdir(parents=True)
        await calls.next()
        (tmp_path / "a" / "b" / "file.yaml").write_text("x")
        await calls.next()


@async_test
async def test_single_file_can_be_watched(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("one")
    async with open_watch(path) as calls:
        path.write_text("two")
        await calls.next()


@async_test
async def test_burst_of_changes_causes_few_calls(tmp_path: Path) -> None:
    path, seen = tmp_path / "file.yaml", []

    async def on_change() -> None:
        seen.append(path.read_text())

    watcher = Watcher()
    watched = Watch(watcher, [tmp_path], on_change, poll_interval=NEVER)
    watched.start()
    for number in range(1000):
        path.write_text(f"{number:4}")
        if number % 100 == 0:
            await asyncio.sleep(0)
    await wait_until(lambda: seen and seen[-1] == " 999")
    await watched.close()
    watcher.close()
    assert len(seen) < 50


@async_test
async def test_reading_files_triggers_no_call(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("x")
    calls = 0

    async def on_change() -> None:
        nonlocal calls
        calls += 1
        path.read_text()
        os.listdir(tmp_path)

    watcher = Watcher()
    watched = Watch(watcher, [tmp_path], on_change, poll_interval=NEVER)
    watched.start()
    path.write_text("y")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wait_until(lambda: calls >= 3), 0.5)
    await watched.close()
    watcher.close()
    assert calls >= 1


@async_test
async def test_poll_interval_triggers_calls_without_events(tmp_path: Path) -> None:
    async with open_watch(tmp_path / "not there yet", poll_interval=0.02) as calls:
        for _ in range(3):
            await calls.next()


@async_test
async def test_missing_path_is_watched_once_it_exists(tmp_path: Path) -> None:
    root = tmp_path / "later"
    async with open_watch(root, poll_interval=0.02) as calls:
        await calls.next()
        root.mkdir()
        await calls.next()
        await calls.next()
        calls.watch.poll_interval = NEVER
        await calls.next()
        (root / "file.yaml").write_text("x")
        await calls.next()


@pytest.mark.parametrize("swap", ["link", "folder"])
@async_test
async def test_swapped_root_is_watched(tmp_path: Path, swap: str) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    root = tmp_path / "root"
    (root.symlink_to if swap == "link" else (tmp_path / "one").rename)(root if swap == "folder" else "one")
    async with open_watch(root, poll_interval=0.02) as calls:
        await calls.next()
        if swap == "link":
            (tmp_path / "new").symlink_to("two")
            (tmp_path / "new").replace(root)
        else:
            root.rename(tmp_path / "old")
            (tmp_path / "two").rename(root)
        await calls.next()
        await calls.next()
        calls.watch.poll_interval = NEVER
        await calls.next()
        (root / "file.yaml").write_text("x")
        await calls.next()


@async_test
async def test_failed_call_is_followed_by_more(tmp_path: Path) -> None:
    async with open_watch(tmp_path) as calls:
        calls.error = RuntimeError("a call that fails")
        (tmp_path / "file.yaml").write_text("x")
        await calls.next()
        (tmp_path / "file.yaml").write_text("y")
        await calls.next()


@pytest.mark.parametrize("root", ["link to itself", "link to nowhere", "a file", "under a file"])
@async_test
async def test_root_that_is_no_folder_is_tolerated(tmp_path: Path, root: str) -> None:
    (tmp_path / "link to itself").symlink_to("link to itself")
    (tmp_path / "link to nowhere").symlink_to("nowhere")
    (tmp_path / "a file").write_text("x")
    path = tmp_path / "a file" / "x" if root == "under a file" else tmp_path / root
    async with open_watch(path, tmp_path / "a file", poll_interval=0.02) as calls:
        for _ in range(3):
            await calls.next()


@async_test
async def test_close_leaks_no_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        async with open_watch(tmp_path):
            (tmp_path / "file.yaml").write_text("x")
    assert len(os.listdir("/proc/self/fd")) <= before


@async_test
async def test_two_watches_of_one_folder_are_independent(
    tmp_path: Path,
) -> None:
    watcher, first_calls, second_calls = Watcher(), CallCounter(), CallCounter()
    first = Watch(watcher, [tmp_path], first_calls.on_change, poll_interval=NEVER)
    second = Watch(watcher, [tmp_path], second_calls.on_change, poll_interval=NEVER)
    first.start()
    second.start()
    (tmp_path / "file.yaml").write_text("x")
    await asyncio.gather(first_calls.next(), second_calls.next())
    await first.close()
    await asyncio.sleep(0)
    (tmp_path / "file.yaml").write_text("y")
    await second_calls.next()
    await second.close()
    watcher.close()


@async_test
async def test_only_writes_ignores_renames_and_subfolders(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    async with open_watch(tmp_path, only_writes=True) as calls:
        (tmp_path / "log").touch()
        (tmp_path / "log").rename(tmp_path / "other")
        (tmp_path / "folder" / "file").write_text("x")
        with pytest.raises(TimeoutError):
            await calls.next(0.2)
        (tmp_path / "other").write_text("x")
        await calls.next(0.2)


@async_test
async def test_unstarted_watch_has_no_thread_and_closes(tmp_path: Path) -> None:
    before = threading.active_count()
    watcher = Watcher()
    watch = Watch(watcher, [tmp_path], CallCounter().on_change)
    assert threading.active_count() == before
    await watch.close()
    watcher.close()
