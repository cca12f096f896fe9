"""Changes of files: from watchdog's threads to the event loop, a burst of them as one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from watchdog.events import (
    DirAttribEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

log = structlog.get_logger(__name__)

SETTLE = 0.05  # seconds between an event and the look, in which the other events of the same save come
LOOK_ANYWAY = 0.5  # seconds: what no event tells of (a link swapped, a network drive) is seen after this

# What the kernel is asked for. Not that a file was opened or closed: reading it would have every look cause the next.
_CHANGES: list[type[FileSystemEvent]] = [
    *(FileCreatedEvent, FileModifiedEvent, FileMovedEvent, FileDeletedEvent, FileAttribEvent),
    *(DirCreatedEvent, DirMovedEvent, DirDeletedEvent, DirAttribEvent),
]
# Not renames: at the first half of one, watchdog stops telling of that folder for half a second, to wait for the other.
_WRITES: list[type[FileSystemEvent]] = [FileModifiedEvent, FileAttribEvent]

_Identity = tuple[Path, int, int]


class Watcher:
    """What all watches share: the one observer, whose threads begin with the first of them."""

    def __init__(self) -> None:
        self._observer: BaseObserver | None = None
        self._sources: dict[tuple[Path, bool], _Source] = {}

    def close(self) -> None:
        """Ends the threads; the watches have to be closed before."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    def subscribe(self, watch: Watch, identity: _Identity, *, only_writes: bool) -> _Source:
        """Has `watch` told what changes there. Raises OSError, as where the kernel's watches are used up."""
        if self._observer is None:
            self._observer = Observer()
            self._observer.start()
        key = (identity[0], only_writes)
        source = self._sources.get(key)
        if source is None or source.identity != identity:
            if source is not None:  # of what was there before under this name, nothing will be heard any more
                self._drop(source)
            source = _Source(identity, only_writes)
            source.observed = self._observer.schedule(
                _Forward(asyncio.get_running_loop(), source),
                str(identity[0]),
                recursive=identity[0].is_dir() and not only_writes,
                event_filter=_WRITES if only_writes else _CHANGES,
            )
            self._sources[key] = source
        source.watches.add(watch)
        return source

    def unsubscribe(self, watch: Watch, source: _Source) -> None:
        source.watches.discard(watch)
        if not source.watches and self._sources.get(source.key) is source:
            self._drop(source)

    def _drop(self, source: _Source) -> None:
        del self._sources[source.key]
        if self._observer is not None and source.observed is not None:
            self._observer.unschedule(source.observed)


class Watch:
    """Calls `look` soon after anything under `paths` has changed, and `anyway` seconds after the last look.

    `look` has to find out itself what differs. Between an event and the look, `settle` seconds pass. Paths that do not
    exist (yet), links, and folders that are swapped for others are all right. `only_writes` is for folders in which
    files are written to and read at once: only those writes count, and no folders in them.
    """

    def __init__(  # noqa: PLR0913 - three of them by name, with defaults
        self,
        watcher: Watcher,
        paths: Sequence[Path],
        look: Callable[[], Awaitable[object]],
        *,
        settle: float = SETTLE,
        anyway: float = LOOK_ANYWAY,
        only_writes: bool = False,
    ) -> None:
        self.settle = settle
        self.anyway = anyway
        self._watcher = watcher
        self._paths = tuple(paths)
        self._look = look
        self._only_writes = only_writes
        self._changed = asyncio.Event()
        self._watched: dict[_Identity, _Source] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._follow_links()
        self._task = asyncio.create_task(self._run(), name="watch files")

    def nudge(self) -> None:
        """Has it look soon, as after an event."""
        self._changed.set()

    def cancel(self) -> None:
        """Ends it, a look that is going on too."""
        if self._task is not None:
            self._task.cancel()
        for source in self._watched.values():
            self._watcher.unsubscribe(self, source)
        self._watched.clear()

    async def close(self) -> None:
        """Ends it, and returns when no look is going on any more."""
        self.cancel()
        if self._task is not None:
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.anyway):
                    await self._changed.wait()
                    await asyncio.sleep(self.settle)
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
            self._watcher.unsubscribe(self, self._watched.pop(gone))
        for new in real - self._watched.keys():
            path = new[0]
            try:
                self._watched[new] = self._watcher.subscribe(self, new, only_writes=self._only_writes)
            except OSError as error:  # the limit of inotify watches: the look every `anyway` seconds still serves
                log.warning("a path can't be watched", path=str(path), error=str(error))


@dataclass(eq=False)
class _Source:
    """A folder or file that is watched, and for whom."""

    identity: _Identity
    only_writes: bool
    watches: set[Watch] = field(default_factory=set)
    observed: ObservedWatch | None = None

    @property
    def key(self) -> tuple[Path, bool]:
        return self.identity[0], self.only_writes


def _identify(path: Path) -> _Identity | None:
    """Tells a folder from another one that has taken its place under the same name. None where there is nothing."""
    try:
        stat = path.stat()
        return path.resolve(), stat.st_dev, stat.st_ino
    except OSError:
        return None


class _Forward(FileSystemEventHandler):
    """Wakes the event loop once for all events that come until it has noticed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, source: _Source) -> None:
        self._loop = loop
        self._source = source
        self._told = False

    def on_any_event(self, event: FileSystemEvent) -> None:
        if not self._told:
            self._told = True
            with suppress(RuntimeError):  # the loop has ended while the observer still had something to tell
                self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._told = False
        for watch in self._source.watches:
            watch.nudge()
