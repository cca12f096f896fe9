"""Changes of files: from watchdog's threads to the event loop, many changes at once as one call."""

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

DEBOUNCE_SECONDS = 0.05  # between an event and the call, for the other events of the same save
POLL_SECONDS = 0.5  # between two calls without an event: a swapped link or a network drive causes none

# Not that a file was opened or closed: each call reads the files, and so would cause the next call.
_CHANGES: list[type[FileSystemEvent]] = [
    *(FileCreatedEvent, FileModifiedEvent, FileMovedEvent, FileDeletedEvent, FileAttribEvent),
    *(DirCreatedEvent, DirMovedEvent, DirDeletedEvent, DirAttribEvent),
]
# Not renames: at the first half of one, watchdog holds back the folder's events for 0.5 s to wait for the other half.
_WRITES: list[type[FileSystemEvent]] = [FileModifiedEvent, FileAttribEvent]

_FileIdentity = tuple[Path, int, int]


class Watcher:
    """The one observer that all watches share; its threads start with the first of them."""

    def __init__(self) -> None:
        self._observer: BaseObserver | None = None
        self._sources: dict[tuple[Path, bool], _WatchedPath] = {}

    def close(self) -> None:
        """Stop the threads; close the watches first."""
        if self._observer is not None:
            self._observer.stop()
            self._observer.join()
            self._observer = None

    def subscribe(self, watch: Watch, identity: _FileIdentity, *, only_writes: bool) -> _WatchedPath:
        """Trigger `watch` at each change there. Raises OSError, for example where the kernel has no watches left."""
        if self._observer is None:
            self._observer = Observer()
            self._observer.start()
        key = (identity[0], only_writes)
        source = self._sources.get(key)
        if source is None or source.identity != identity:
            if source is not None:  # another folder had this name: it sends no more events
                self._drop(source)
            source = _WatchedPath(identity, only_writes)
            source.observed = self._observer.schedule(
                _EventForwarder(asyncio.get_running_loop(), source),
                str(identity[0]),
                recursive=identity[0].is_dir() and not only_writes,
                event_filter=_WRITES if only_writes else _CHANGES,
            )
            self._sources[key] = source
        source.watches.add(watch)
        return source

    def unsubscribe(self, watch: Watch, source: _WatchedPath) -> None:
        source.watches.discard(watch)
        if not source.watches and self._sources.get(source.key) is source:
            self._drop(source)

    def _drop(self, source: _WatchedPath) -> None:
        del self._sources[source.key]
        if self._observer is not None and source.observed is not None:
            self._observer.unschedule(source.observed)


class Watch:
    """Calls `on_change` soon after anything under `paths` has changed, and `poll_interval` seconds after the last call.

    `on_change` has to find out itself what differs. Between an event and the call, `debounce` seconds pass. Paths that
    do not exist (yet), links, and folders that are swapped for others are supported. `only_writes` is for folders whose
    files are written and read at once: only writes to files directly in them count.
    """

    def __init__(  # noqa: PLR0913 - three of them by name, with defaults
        self,
        watcher: Watcher,
        paths: Sequence[Path],
        on_change: Callable[[], Awaitable[object]],
        *,
        debounce: float = DEBOUNCE_SECONDS,
        poll_interval: float = POLL_SECONDS,
        only_writes: bool = False,
    ) -> None:
        self.debounce = debounce
        self.poll_interval = poll_interval
        self._watcher = watcher
        self._paths = tuple(paths)
        self._on_change = on_change
        self._only_writes = only_writes
        self._changed = asyncio.Event()
        self._watched: dict[_FileIdentity, _WatchedPath] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._resolve_paths()
        self._task = asyncio.create_task(self._run(), name="watch files")

    def trigger(self) -> None:
        """Cause a call soon, as after an event."""
        self._changed.set()

    def cancel(self) -> None:
        """Stop, and cancel a call in progress."""
        if self._task is not None:
            self._task.cancel()
        for source in self._watched.values():
            self._watcher.unsubscribe(self, source)
        self._watched.clear()

    async def close(self) -> None:
        """Stop, and return when no call is in progress any more."""
        self.cancel()
        if self._task is not None:
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.poll_interval):
                    await self._changed.wait()
                    await asyncio.sleep(self.debounce)
            self._changed.clear()
            try:
                self._resolve_paths()
                await self._on_change()
            except Exception:
                log.exception("file_watch_callback_failed")

    def _resolve_paths(self) -> None:
        """Watch what the paths lead to now: after a swap of a folder, the watch of the old one sends no events."""
        real = set(filter(None, map(_identify_file, self._paths)))
        for old in self._watched.keys() - real:
            self._watcher.unsubscribe(self, self._watched.pop(old))
        for new in real - self._watched.keys():
            path = new[0]
            try:
                self._watched[new] = self._watcher.subscribe(self, new, only_writes=self._only_writes)
            except OSError as error:  # the limit of inotify watches: the call every `poll_interval` seconds is left
                log.warning("file_watch_failed", path=str(path), error=str(error))


@dataclass(eq=False)
class _WatchedPath:
    """A folder or file that is watched, and the watches that it triggers."""

    identity: _FileIdentity
    only_writes: bool
    watches: set[Watch] = field(default_factory=set)
    observed: ObservedWatch | None = None

    @property
    def key(self) -> tuple[Path, bool]:
        return self.identity[0], self.only_writes


def _identify_file(path: Path) -> _FileIdentity | None:
    """What tells a folder from another one that has taken its name. None where the path does not exist."""
    try:
        stat = path.stat()
        return path.resolve(), stat.st_dev, stat.st_ino
    except OSError:
        return None


class _EventForwarder(FileSystemEventHandler):
    """Wakes the event loop once for all events that come before it runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop, source: _WatchedPath) -> None:
        self._loop = loop
        self._source = source
        self._is_pending = False

    def on_any_event(self, event: FileSystemEvent) -> None:
        if not self._is_pending:
            self._is_pending = True
            with suppress(RuntimeError):  # the loop was closed before the observer stopped
                self._loop.call_soon_threadsafe(self._notify)

    def _notify(self) -> None:
        self._is_pending = False
        for watch in self._source.watches:
            watch.trigger()
