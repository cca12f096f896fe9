"""Changes of files: from watchdog's threads to the event loop, a burst of them as one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import structlog
from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

log = structlog.get_logger(__name__)

SETTLE = 0.05  # seconds between an event and the look, in which the other events of the same save come
LOOK_ANYWAY = 0.5  # seconds: what no event tells of (a link swapped, a network drive) is seen after this

# Reading a file makes these: they would have every look cause the next.
_JUST_READING = frozenset({"opened", "closed_no_write"})


class Watch:
    """Calls `look` soon after anything under `paths` has changed, and `LOOK_ANYWAY` seconds after the last look.

    `look` has to find out itself what differs. Paths that do not exist (yet), links, and folders that are swapped
    for others are all right.
    """

    def __init__(self, paths: Sequence[Path], look: Callable[[], Awaitable[object]]) -> None:
        self._paths = tuple(paths)
        self._look = look
        self._changed = asyncio.Event()
        self._observer: BaseObserver = Observer()
        self._watched: dict[_Identity, ObservedWatch] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._handler = _Forward(asyncio.get_running_loop(), self._changed)
        self._observer.start()
        self._follow_links()
        self._task = asyncio.create_task(self._run(), name="watch files")

    async def close(self) -> None:
        if self._task is None:
            return
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self._observer.stop()
        self._observer.join()

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_ANYWAY):
                    await self._changed.wait()
                    await asyncio.sleep(SETTLE)
            self._changed.clear()
            try:
                self._follow_links()
                await self._look()
            except Exception:
                log.exception("looking at changed files failed")

    def _follow_links(self) -> None:
        """Watches what the paths lead to now: after a swap of the folder itself, its old watch would stay silent."""
        real = set(filter(None, map(_identify, self._paths)))
        for gone in self._watched.keys() - real:
            self._observer.unschedule(self._watched.pop(gone))
        for new in real - self._watched.keys():
            path = new[0]
            try:
                self._watched[new] = self._observer.schedule(self._handler, str(path), recursive=path.is_dir())
            except OSError as error:  # the limit of inotify watches: the look every LOOK_ANYWAY seconds still serves
                log.warning("a path can't be watched", path=str(path), error=str(error))


_Identity = tuple[Path, int, int]


def _identify(path: Path) -> _Identity | None:
    """Tells a folder from another one that has taken its place under the same name. None where there is nothing."""
    try:
        stat = path.stat()
        return path.resolve(), stat.st_dev, stat.st_ino
    except OSError:
        return None


class _Forward(FileSystemEventHandler):
    def __init__(self, loop: asyncio.AbstractEventLoop, changed: asyncio.Event) -> None:
        self._loop = loop
        self._changed = changed

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type not in _JUST_READING:
            with suppress(RuntimeError):  # the loop has ended while the observer still had something to tell
                self._loop.call_soon_threadsafe(self._changed.set)
