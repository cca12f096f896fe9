"""Watched files: whatever is done to them, a look follows soon, and a burst is few looks."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from infraforge_runner.watch import Watch, Watcher
from tests.aio import asynchronous, comes_true

SOON = 1.0  # seconds
NEVER = 1000.0


class Looks:
    """Counts looks, and lets a test wait for one that began after a moment."""

    watch: Watch

    def __init__(self) -> None:
        self.count = 0
        self.error: Exception | None = None
        self._changed = asyncio.Event()

    async def look(self) -> None:
        self.count += 1
        self._changed.set()
        if self.error is not None:
            raise self.error

    async def next(self, seconds: float = SOON) -> None:
        self._changed.clear()
        async with asyncio.timeout(seconds):
            await self._changed.wait()


@asynccontextmanager
async def watching(*paths: Path, anyway: float = NEVER, only_writes: bool = False) -> AsyncIterator[Looks]:
    """By events alone, unless `anyway` says otherwise."""
    looks = Looks()
    watcher = Watcher()
    looks.watch = Watch(watcher, paths, looks.look, anyway=anyway, only_writes=only_writes)
    looks.watch.start()
    try:
        yield looks
    finally:
        await looks.watch.close()
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
@asynchronous
async def test_a_change_is_looked_at_soon(tmp_path: Path, change: str) -> None:
    path = tmp_path / "root" / "folder" / "file.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("old")
    async with watching(tmp_path / "root") as looks:
        CHANGES[change](path)
        await looks.next()


@asynchronous
async def test_a_folder_that_is_new_is_watched_as_well(tmp_path: Path) -> None:
    async with watching(tmp_path) as looks:
        (tmp_path / "a" / "b").mkdir(parents=True)
        await looks.next()
        (tmp_path / "a" / "b" / "file.yaml").write_text("x")
        await looks.next()


@asynchronous
async def test_a_single_file_can_be_watched(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("one")
    async with watching(path) as looks:
        path.write_text("two")
        await looks.next()


@asynchronous
async def test_a_burst_is_few_looks_and_the_last_of_them_sees_all(tmp_path: Path) -> None:
    path, seen = tmp_path / "file.yaml", []

    async def look() -> None:
        seen.append(path.read_text())

    watcher = Watcher()
    watched = Watch(watcher, [tmp_path], look, anyway=NEVER)
    watched.start()
    for number in range(1000):
        path.write_text(f"{number:4}")
        if number % 100 == 0:
            await asyncio.sleep(0)
    await comes_true(lambda: seen and seen[-1] == " 999")
    await watched.close()
    watcher.close()
    assert len(seen) < 50


@asynchronous
async def test_looking_does_not_make_it_look_again(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("x")
    looks = 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        path.read_text()
        os.listdir(tmp_path)

    watcher = Watcher()
    watched = Watch(watcher, [tmp_path], look, anyway=NEVER)
    watched.start()
    path.write_text("y")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(comes_true(lambda: looks >= 3), 0.5)
    await watched.close()
    watcher.close()
    assert looks >= 1


@asynchronous
async def test_it_looks_anyway_now_and_then(tmp_path: Path) -> None:
    async with watching(tmp_path / "not there yet", anyway=0.02) as looks:
        for _ in range(3):
            await looks.next()


@asynchronous
async def test_what_is_not_there_yet_is_watched_once_it_has_come(tmp_path: Path) -> None:
    root = tmp_path / "later"
    async with watching(root, anyway=0.02) as looks:
        await looks.next()
        root.mkdir()
        await looks.next()
        await looks.next()
        looks.watch.anyway = NEVER
        await looks.next()
        (root / "file.yaml").write_text("x")
        await looks.next()


@pytest.mark.parametrize("swap", ["link", "folder"])
@asynchronous
async def test_a_root_that_was_swapped_for_another_is_watched_like_the_first(tmp_path: Path, swap: str) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    root = tmp_path / "root"
    (root.symlink_to if swap == "link" else (tmp_path / "one").rename)(root if swap == "folder" else "one")
    async with watching(root, anyway=0.02) as looks:
        await looks.next()
        if swap == "link":
            (tmp_path / "new").symlink_to("two")
            (tmp_path / "new").replace(root)
        else:
            root.rename(tmp_path / "old")
            (tmp_path / "two").rename(root)
        await looks.next()
        await looks.next()
        looks.watch.anyway = NEVER
        await looks.next()
        (root / "file.yaml").write_text("x")
        await looks.next()


@asynchronous
async def test_a_look_that_fails_is_not_the_last(tmp_path: Path) -> None:
    async with watching(tmp_path) as looks:
        looks.error = RuntimeError("a look that fails")
        (tmp_path / "file.yaml").write_text("x")
        await looks.next()
        (tmp_path / "file.yaml").write_text("y")
        await looks.next()


@pytest.mark.parametrize("root", ["link to itself", "link to nowhere", "a file", "under a file"])
@asynchronous
async def test_a_root_that_is_no_folder_is_nothing_to_stumble_over(tmp_path: Path, root: str) -> None:
    (tmp_path / "link to itself").symlink_to("link to itself")
    (tmp_path / "link to nowhere").symlink_to("nowhere")
    (tmp_path / "a file").write_text("x")
    path = tmp_path / "a file" / "x" if root == "under a file" else tmp_path / root
    async with watching(path, tmp_path / "a file", anyway=0.02) as looks:
        for _ in range(3):
            await looks.next()


@asynchronous
async def test_closing_leaves_no_thread_and_no_file_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        async with watching(tmp_path):
            (tmp_path / "file.yaml").write_text("x")
    assert len(os.listdir("/proc/self/fd")) <= before


@asynchronous
async def test_two_watches_of_one_folder_are_told_alike_and_one_that_ends_takes_nothing_from_the_other(
    tmp_path: Path,
) -> None:
    watcher, one, other = Watcher(), Looks(), Looks()
    first = Watch(watcher, [tmp_path], one.look, anyway=NEVER)
    second = Watch(watcher, [tmp_path], other.look, anyway=NEVER)
    first.start()
    second.start()
    (tmp_path / "file.yaml").write_text("x")
    await asyncio.gather(one.next(), other.next())
    await first.close()
    await asyncio.sleep(0)
    (tmp_path / "file.yaml").write_text("y")
    await other.next()
    await second.close()
    watcher.close()


@asynchronous
async def test_of_a_folder_that_is_written_to_renames_and_folders_in_it_are_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    async with watching(tmp_path, only_writes=True) as looks:
        (tmp_path / "log").touch()
        (tmp_path / "log").rename(tmp_path / "other")
        (tmp_path / "folder" / "file").write_text("x")
        with pytest.raises(TimeoutError):
            await looks.next(0.2)
        (tmp_path / "other").write_text("x")
        await looks.next(0.2)


@asynchronous
async def test_a_watch_that_never_began_costs_nothing_and_closes(tmp_path: Path) -> None:
    before = threading.active_count()
    watcher = Watcher()
    watch = Watch(watcher, [tmp_path], Looks().look)
    assert threading.active_count() == before
    await watch.close()
    watcher.close()
