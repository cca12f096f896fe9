"""The presets on disk: YAML in folders, checked, and swapped whole as one immutable snapshot.

A `Kind` says which files are its own and how one is checked; whoever owns a kind registers it with the store.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import Any, Generic, Literal, TypeVar

import structlog

from pipeline import yamlfile
from pipeline.schema import SchemaError

log = structlog.get_logger(__name__)

P = TypeVar("P")

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, eq=False)
class Kind(Generic[P]):
    """One kind of preset: `folder`/NAME.yaml, or with `single` only `folder`/SINGLE.yaml.

    `parse` makes the preset from the file's content; it raises SchemaError.
    """

    name: str
    folder: str
    parse: Callable[[Any], P]
    single: str | None = None

    def files(self, root: Path) -> dict[str, Path]:
        """The files that count, by the names of their presets. Raises OSError for a folder that can't be read."""
        if self.single is not None:
            path = root / self.folder / f"{self.single}.yaml"
            return {self.single: path} if os.path.lexists(path) else {}
        try:
            paths = sorted((root / self.folder).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {path.stem: path for path in paths if path.suffix == ".yaml" and not path.name.startswith(".")}


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a file of presets, and where. `line` is 0 where it is the whole file."""

    kind: str
    name: str
    path: str
    line: int
    problem: str
    cause: Exception | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.problem}" if self.line else f"{self.path}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Change:
    """What a file's change means: the feed tells it."""

    kind: str
    name: str
    change: Literal["added", "changed", "removed", "rejected"]
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All presets as they were at one moment. A request keeps the one it began with."""

    presets: Mapping[str, Mapping[str, Any]]
    faults: tuple[Fault, ...] = ()

    def of(self, kind: Kind[P]) -> Mapping[str, P]:
        return self.presets[kind.name]


@dataclass(slots=True)
class _File:
    """A file as it was last read: what tells whether it has changed, what it said, what was wrong with it."""

    signature: tuple[int, ...]
    preset: Any = None
    fault: Fault | None = None


class PresetStore:
    """Reads the folders of its kinds, and keeps the last good version of every preset.

    `roots` are read in order; where two define one name, the first counts.
    """

    def __init__(self, roots: Sequence[Path], kinds: Sequence[Kind[Any]]) -> None:
        self.roots = tuple(roots)
        self.kinds = tuple(kinds)
        self.snapshot = Snapshot({kind.name: {} for kind in kinds})
        self._files: dict[tuple[str, Path], _File] = {}
        self._told: set[str] = set()

    def reload(self) -> list[Change]:
        """Looks at every file, reads those that differ, and swaps the snapshot. Returns what changed."""
        before, known = self.snapshot, self._files
        self._files = {}
        presets: dict[str, dict[str, Any]] = {}
        rejected: list[Change] = []
        for kind in self.kinds:
            presets[kind.name] = {}
            for root in self.roots:
                for name, path in self._paths(kind, root, known):
                    key = (kind.name, path)
                    old = known.get(key)
                    file = self._files[key] = _read(kind, root, name, path, old)
                    if file.fault is not None and (old is None or file.fault != old.fault):
                        rejected.append(Change(kind.name, name, "rejected", file.fault))
                    if file.preset is not None:
                        presets[kind.name].setdefault(name, file.preset)
        faults = tuple(file.fault for file in self._files.values() if file.fault is not None)
        self.snapshot = Snapshot(presets, faults)
        return [*_compare(before, self.snapshot), *rejected]

    def _paths(self, kind: Kind[Any], root: Path, known: Mapping[tuple[str, Path], _File]) -> list[tuple[str, Path]]:
        """The files of a kind. Of a folder that can't be read for a moment, those that it had."""
        try:
            return list(kind.files(root).items())
        except OSError as error:
            if str(error) not in self._told:  # once, not at every look
                log.warning("presets can't be read; those that were read before stay", kind=kind.name, error=str(error))
                self._told.add(str(error))
            return [(path.stem, path) for name, path in known if name == kind.name and path.is_relative_to(root)]


def _read(kind: Kind[Any], root: Path, name: str, path: Path, old: _File | None) -> _File:
    """The file as it is now. A broken one keeps what it last said."""
    fault = partial(Fault, kind.name, name, str(path.relative_to(root)))
    preset = old.preset if old is not None else None
    signature: tuple[int, ...] = ()
    try:
        stat = path.stat()
        signature = (stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_dev, stat.st_mode)
        if old is not None and old.signature == signature:
            return old
        if not S_ISREG(stat.st_mode):
            raise yamlfile.YamlError(0, "expected a regular file")
        if not NAME.fullmatch(name):
            raise yamlfile.YamlError(0, f"{name!r} is no name for a preset: expected {NAME.pattern}")
        return _File(signature, _parse(kind, path.read_bytes()))
    except OSError as error:
        return _File(signature, preset, fault(0, f"can't be read: {error.strerror}", error))
    except yamlfile.YamlError as error:
        return _File(signature, preset, fault(error.line, error.problem, error.cause))
    except Exception as error:  # a plugin's check of its options is a stranger's code
        log.exception("a preset's check failed", path=str(path))
        return _File(signature, preset, fault(0, f"can't be checked: {error!r}", error))


def _parse(kind: Kind[P], content: bytes) -> P:
    document = yamlfile.parse(content)
    try:
        return kind.parse(document.value)
    except SchemaError as error:
        raise yamlfile.YamlError(document.line_of(error.path), str(error), error) from error


def _compare(before: Snapshot, after: Snapshot) -> list[Change]:
    changes = []
    for kind, presets in after.presets.items():
        old = before.presets[kind]
        for name in sorted(old.keys() | presets.keys()):
            if name not in presets:
                changes.append(Change(kind, name, "removed"))
            elif name not in old:
                changes.append(Change(kind, name, "added"))
            elif presets[name] is not old[name] and presets[name] != old[name]:
                changes.append(Change(kind, name, "changed"))
    return [*changes, *_healed(before, after, changes)]


def _healed(before: Snapshot, after: Snapshot, changes: list[Change]) -> list[Change]:
    """What was wrong and is not any more, though no preset differs: who was told of the fault must hear of its end."""
    still = {(change.kind, change.name) for change in changes} | {(fault.kind, fault.name) for fault in after.faults}
    ended = sorted({(fault.kind, fault.name) for fault in before.faults} - still)
    return [Change(kind, name, "changed" if name in after.presets[kind] else "removed") for kind, name in ended]
