"""The presets on disk: YAML files in folders, validated, and replaced as a whole by one immutable snapshot.

A `PresetKind` says which files belong to it and how to parse one. Its owner passes it to the store.
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

from pipeline.presets import yaml
from pipeline.presets.schema import SchemaError

log = structlog.get_logger(__name__)

P = TypeVar("P")

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, eq=False)
class PresetKind(Generic[P]):
    """One kind of preset: the files `folder`/NAME.yaml, or with `single` only the file `folder`/SINGLE.yaml.

    `parse` makes the preset from a file's content. It raises SchemaError. `find_warnings` returns what is outdated in a
    valid preset.
    """

    name: str
    folder: str
    parse: Callable[[Any], P]
    single: str | None = None
    find_warnings: Callable[[P], Sequence[SchemaError]] = lambda preset: ()

    def list_files(self, root: Path) -> dict[str, Path]:
        """The files of this kind by the names of their presets. Raises OSError for an unreadable folder."""
        if self.single is not None:
            path = root / self.folder / f"{self.single}.yaml"
            return {self.single: path} if os.path.lexists(path) else {}
        try:
            paths = sorted((root / self.folder).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return {path.stem: path for path in paths if path.suffix == ".yaml" and not path.name.startswith(".")}


@dataclass(frozen=True, slots=True)
class PresetError:
    """What is wrong with a preset file, and where. `line` counts from 1; 0 means the whole file."""

    kind: str
    name: str
    path: str
    line: int
    problem: str
    cause: Exception | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.problem}" if self.line else f"{self.path}: {self.problem}"


@dataclass(frozen=True, slots=True)
class PresetChange:
    """The effect of a changed file on its preset. The change feed reports it to clients."""

    kind: str
    name: str
    change: Literal["added", "changed", "removed", "rejected"]
    error: PresetError | None = None


@dataclass(frozen=True, slots=True)
class PresetSnapshot:
    """All presets at one moment, by kind and name. A request keeps the snapshot with which it started."""

    presets: Mapping[str, Mapping[str, Any]]
    errors: tuple[PresetError, ...] = ()
    warnings: tuple[PresetError, ...] = ()

    def get(self, kind: PresetKind[P]) -> Mapping[str, P]:
        """The presets of this kind by name."""
        return self.presets[kind.name]


@dataclass(slots=True)
class _PresetFile:
    """A file at its last read: a signature that differs once the file does, its last valid preset, its problems."""

    signature: tuple[int, ...]
    preset: Any = None
    error: PresetError | None = None
    warnings: tuple[PresetError, ...] = ()


class PresetStore:
    """Reads the folders of its kinds and keeps the last valid version of every preset.

    `roots` are read in order; where two of them define one name, the first wins.
    """

    def __init__(self, roots: Sequence[Path], kinds: Sequence[PresetKind[Any]]) -> None:
        self.roots = tuple(roots)
        self.kinds = tuple(kinds)
        self.snapshot = PresetSnapshot({kind.name: {} for kind in kinds})
        self._files: dict[tuple[str, Path], _PresetFile] = {}
        self._logged_errors: set[str] = set()

    def reload(self) -> list[PresetChange]:
        """Read the files that differ since the last call and replace the snapshot. Returns the changes."""
        before, previous_files = self.snapshot, self._files
        self._files = {}
        presets: dict[str, dict[str, Any]] = {}
        rejections: list[PresetChange] = []
        for kind in self.kinds:
            presets[kind.name] = {}
            for root in self.roots:
                for name, path in self._list_files(kind, root, previous_files):
                    key = (kind.name, path)
                    previous = previous_files.get(key)
                    file = self._files[key] = _read_file(kind, root, name, path, previous)
                    if file.error is not None and (previous is None or file.error != previous.error):
                        rejections.append(PresetChange(kind.name, name, "rejected", file.error))
                    if file.preset is not None:
                        presets[kind.name].setdefault(name, file.preset)
        errors = tuple(file.error for file in self._files.values() if file.error is not None)
        warnings = tuple(warning for file in self._files.values() for warning in file.warnings)
        self.snapshot = PresetSnapshot(presets, errors, warnings)
        return [*_diff(before, self.snapshot), *rejections]

    def _list_files(
        self, kind: PresetKind[Any], root: Path, previous_files: Mapping[tuple[str, Path], _PresetFile]
    ) -> list[tuple[str, Path]]:
        """The files of a kind; for a folder that can't be read at the moment, the files that it had before."""
        try:
            return list(kind.list_files(root).items())
        except OSError as error:
            if str(error) not in self._logged_errors:  # once, not at every reload
                log.warning("preset_folder_unreadable", kind=kind.name, error=str(error))
                self._logged_errors.add(str(error))
            return [
                (path.stem, path) for name, path in previous_files if name == kind.name and path.is_relative_to(root)
            ]


def _read_file(kind: PresetKind[Any], root: Path, name: str, path: Path, previous: _PresetFile | None) -> _PresetFile:
    """The file as it is now. An invalid file keeps the preset of its last valid version."""
    make_error = partial(PresetError, kind.name, name, str(path.relative_to(root)))
    preset = previous.preset if previous is not None else None
    signature: tuple[int, ...] = ()
    try:
        stat = path.stat()
        signature = (stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_dev, stat.st_mode)
        if previous is not None and previous.signature == signature:
            return previous
        if not S_ISREG(stat.st_mode):
            raise yaml.YamlError(0, "expected a regular file")
        if not NAME_PATTERN.fullmatch(name):
            raise yaml.YamlError(0, f"{name!r} is no name for a preset: expected {NAME_PATTERN.pattern}")
        document = yaml.parse(path.read_bytes())
        valid_preset = _parse_preset(kind, document)
        warnings = kind.find_warnings(valid_preset)
        return _PresetFile(
            signature,
            valid_preset,
            warnings=tuple(make_error(document.line_of(warning.path), str(warning)) for warning in warnings),
        )
    except OSError as error:
        return _PresetFile(signature, preset, make_error(0, f"can't be read: {error.strerror}", error))
    except yaml.YamlError as error:
        return _PresetFile(signature, preset, make_error(error.line, error.problem, error.cause))
    except Exception as error:  # a plugin validates its options, and its code may raise anything
        log.exception("preset_validation_crashed", path=str(path))
        return _PresetFile(signature, preset, make_error(0, f"can't be checked: {error!r}", error))


def _parse_preset(kind: PresetKind[P], document: yaml.Document) -> P:
    try:
        return kind.parse(document.value)
    except SchemaError as error:
        raise yaml.YamlError(document.line_of(error.path), str(error), error) from error


def _diff(before: PresetSnapshot, after: PresetSnapshot) -> list[PresetChange]:
    changes = []
    for kind, presets in after.presets.items():
        previous = before.presets[kind]
        for name in sorted(previous.keys() | presets.keys()):
            if name not in presets:
                changes.append(PresetChange(kind, name, "removed"))
            elif name not in previous:
                changes.append(PresetChange(kind, name, "added"))
            elif presets[name] is not previous[name] and presets[name] != previous[name]:
                changes.append(PresetChange(kind, name, "changed"))
    return [*changes, *_resolved(before, after, changes)]


def _resolved(before: PresetSnapshot, after: PresetSnapshot, changes: list[PresetChange]) -> list[PresetChange]:
    """Changes for errors that are gone although no preset differs: a client that saw the error has to see its end."""
    reported = {(change.kind, change.name) for change in changes}
    unresolved = {(error.kind, error.name) for error in after.errors}
    resolved = sorted({(error.kind, error.name) for error in before.errors} - reported - unresolved)
    return [
        PresetChange(kind, name, "changed" if name in after.presets[kind] else "removed") for kind, name in resolved
    ]
