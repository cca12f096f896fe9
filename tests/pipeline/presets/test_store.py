"""Presets on disk: read, validated, and replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec import Struct

from pipeline.presets.schema import SchemaError, validate
from pipeline.presets.store import PresetChange, PresetKind, PresetStore


class Lamp(Struct, frozen=True, forbid_unknown_fields=True):
    watts: int


LAMP_PRESETS: PresetKind[Lamp] = PresetKind("lamp", "lamps", lambda value: validate(value, Lamp))
HOUSE_PRESET: PresetKind[Lamp] = PresetKind("house", "", lambda value: validate(value, Lamp), single="house")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "lamps").mkdir()
    return tmp_path


def make_store(*roots: Path) -> PresetStore:
    return PresetStore(roots, [LAMP_PRESETS, HOUSE_PRESET])


def write_preset(path: Path, content: str | bytes) -> None:
    """Write another file and rename it over the old one, as editors do, so that its inode differs."""
    new_file = path.with_name(".new")
    new_file.write_bytes(content.encode() if isinstance(content, str) else content)
    new_file.replace(path)


def summarize(changes: list[PresetChange]) -> list[tuple[str, str, str]]:
    return [(change.kind, change.name, change.change) for change in changes]


def list_errors(store: PresetStore) -> list[str]:
    return [str(error) for error in store.snapshot.errors]


def test_first_reload_adds_existing_files(root: Path) -> None:
    write_preset(root / "lamps" / "desk.yaml", "watts: 5")
    write_preset(root / "house.yaml", "watts: 900")
    store = make_store(root)
    assert summarize(store.reload()) == [("lamp", "desk", "added"), ("house", "house", "added")]
    assert store.snapshot.get(LAMP_PRESETS) == {"desk": Lamp(5)}
    assert store.snapshot.get(HOUSE_PRESET) == {"house": Lamp(900)}


def test_reload_without_changes_reports_nothing(root: Path) -> None:
    write_preset(root / "lamps" / "desk.yaml", "watts: 5")
    store = make_store(root)
    store.reload()
    before = store.snapshot.get(LAMP_PRESETS)["desk"]
    assert store.reload() == []
    assert store.snapshot.get(LAMP_PRESETS)["desk"] is before


def test_file_with_another_value_is_changed(root: Path) -> None:
    write_preset(root / "lamps" / "desk.yaml", "watts: 5")
    store = make_store(root)
    store.reload()
    write_preset(root / "lamps" / "desk.yaml", "watts: 6")
    assert summarize(store.reload()) == [("lamp", "desk", "changed")]
    assert store.snapshot.get(LAMP_PRESETS) == {"desk": Lamp(6)}


def test_file_with_an_equal_value_is_not_changed(root: Path) -> None:
    write_preset(root / "lamps" / "desk.yaml", "watts: 5")
    store = make_store(root)
    store.reload()
    write_preset(root / "lamps" / "desk.yaml", "# five\nwatts: 5")
    assert store.reload() == []


def test_deleted_file_removes_its_preset(root: Path) -> None:
    write_preset(root / "lamps" / "desk.yaml", "watts: 5")
    store = make_store(root)
    store.reload()
    (root / "lamps" / "desk.yaml").unlink()
    assert summarize(store.reload()) == [("lamp", "desk", "removed")]
    assert store.snapshot.get(LAMP_PRESETS) == {}


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("\nwatts: many", "lamps/desk.yaml:2: watts: expected an integer, got a string"),
        ("watts: 5\nvolts: 3", "lamps/desk.yaml:2: volts: unknown field (known are watts)"),
        ("{}", "lamps/desk.yaml:1: watts: this field is required"),
        ("", "lamps/desk.yaml: expected a mapping (key: value); the file is empty or holds none"),
        ("watts: [", "lamps/desk.yaml:1: not valid YAML: expected the node content, but found '<stream end>'"),
    ],
)
def test_invalid_file_is_rejected_once_and_the_last_valid_version_stays(root: Path, content: str, error: str) -> None:
    write_preset(root / "lamps" / "desk.yaml", "watts: 5")
    store = make_store(root)
    store.reload()
    write_preset(root / "lamps" / "desk.yaml", content)
    (change,) = store.reload()
    assert (change.change, str(change.error)) == ("rejected", error)
    assert store.snapshot.get(LAMP_PRESETS) == {"desk": Lamp(5)}
    assert store.reload() == []
    assert list_errors(store) == [error]


def test_invalid_file_with_another_error_is_rejected_again(root: Path) -> None:
    store, path = make_store(root), root / "lamps" / "desk.yaml"
    steps = {"watts: a": "rejected", "volts: 3": "rejected", "watts: 6": "added", "": "rejected", "watts: 7": "changed"}
    for content, change in steps.items():
        write_preset(path, content)
        assert summarize(store.reload()) == [("lamp", "desk", change)]
    assert list_errors(store) == []


def test_repaired_file_with_its_old_value_is_changed(root: Path) -> None:
    store, path = make_store(root), root / "lamps" / "desk.yaml"
    for content, change in {"watts: 5": "added", "watts: a": "rejected", "watts: 5 ": "changed"}.items():
        write_preset(path, content)
        assert summarize(store.reload()) == [("lamp", "desk", change)]
    assert list_errors(store) == []


def test_deleted_file_that_was_never_valid_is_removed(root: Path) -> None:
    store, path = make_store(root), root / "lamps" / "desk.yaml"
    write_preset(path, "watts: a")
    assert summarize(store.reload()) == [("lamp", "desk", "rejected")]
    path.unlink()
    assert summarize(store.reload()) == [("lamp", "desk", "removed")]
    assert store.reload() == []


def test_deleted_invalid_file_removes_its_last_valid_version(root: Path) -> None:
    write_preset(root / "lamps" / "desk.yaml", "watts: 5")
    store = make_store(root)
    store.reload()
    write_preset(root / "lamps" / "desk.yaml", "")
    store.reload()
    (root / "lamps" / "desk.yaml").unlink()
    assert summarize(store.reload()) == [("lamp", "desk", "removed")]
    assert list_errors(store) == []


def test_path_that_is_no_regular_file_keeps_the_last_valid_version(root: Path) -> None:
    path = root / "lamps" / "desk.yaml"
    write_preset(path, "watts: 5")
    store = make_store(root)
    store.reload()
    path.unlink()
    path.mkdir()
    assert summarize(store.reload()) == [("lamp", "desk", "rejected")]
    assert store.snapshot.get(LAMP_PRESETS) == {"desk": Lamp(5)}
    assert list_errors(store) == ["lamps/desk.yaml: expected a regular file"]


@pytest.mark.parametrize("path", ["lamps/desk.yaml", "house.yaml"])
def test_dangling_link_is_an_error_until_its_target_exists(root: Path, path: str) -> None:
    (root / path).symlink_to(root / "elsewhere")
    store = make_store(root)
    assert [change.change for change in store.reload()] == ["rejected"]
    assert list_errors(store) == [f"{path}: can't be read: No such file or directory"]
    assert store.reload() == []
    (root / "elsewhere").write_text("watts: 5")
    assert [change.change for change in store.reload()] == ["added"]


def test_link_to_another_target_is_a_change(root: Path) -> None:
    for name, watts in (("one", 1), ("two", 2)):
        (root / name).mkdir()
        (root / name / "desk.yaml").write_text(f"watts: {watts}")
    (root / "data").symlink_to("one")
    (root / "lamps" / "desk.yaml").symlink_to(root / "data" / "desk.yaml")
    store = make_store(root)
    store.reload()
    (root / "data").unlink()
    (root / "data").symlink_to("two")
    assert summarize(store.reload()) == [("lamp", "desk", "changed")]
    assert store.snapshot.get(LAMP_PRESETS) == {"desk": Lamp(2)}


@pytest.mark.parametrize("name", ["Desk", "-desk", "a b", "ünï", "x" * 65])
def test_invalid_preset_name_is_an_error(root: Path, name: str) -> None:
    write_preset(root / "lamps" / f"{name}.yaml", "watts: 5")
    store = make_store(root)
    assert summarize(store.reload()) == [("lamp", name, "rejected")]
    assert f"{name!r} is no name for a preset" in list_errors(store)[0]
    assert store.snapshot.get(LAMP_PRESETS) == {}


@pytest.mark.parametrize("name", ["desk", "0", "qwen2.5-vl-32b", "a_b", "x" * 64])
def test_valid_preset_name_may_have_dots_and_dashes(root: Path, name: str) -> None:
    write_preset(root / "lamps" / f"{name}.yaml", "watts: 5")
    store = make_store(root)
    store.reload()
    assert list(store.snapshot.get(LAMP_PRESETS)) == [name]


@pytest.mark.parametrize("file", [".desk.yaml", "desk.yml", "desk.yaml~", "desk.yaml.swp", "desk", ".yaml"])
def test_files_of_other_types_are_ignored(root: Path, file: str) -> None:
    (root / "lamps" / file).write_text("rubbish: [")
    assert make_store(root).reload() == []


def test_first_root_wins(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        (folder / "lamps").mkdir(parents=True)
    write_preset(first / "lamps" / "desk.yaml", "watts: 5")
    write_preset(second / "lamps" / "desk.yaml", "watts: 6")
    write_preset(second / "lamps" / "wall.yaml", "watts: 7")
    store = make_store(first, second)
    store.reload()
    assert store.snapshot.get(LAMP_PRESETS) == {"desk": Lamp(5), "wall": Lamp(7)}
    (first / "lamps" / "desk.yaml").unlink()
    assert summarize(store.reload()) == [("lamp", "desk", "changed")]
    assert store.snapshot.get(LAMP_PRESETS)["desk"] == Lamp(6)


def test_missing_root_is_empty_and_may_appear_later(tmp_path: Path) -> None:
    store = make_store(tmp_path / "later")
    assert store.reload() == []
    (tmp_path / "later" / "lamps").mkdir(parents=True)
    write_preset(tmp_path / "later" / "lamps" / "desk.yaml", "watts: 5")
    assert summarize(store.reload()) == [("lamp", "desk", "added")]


def test_snapshot_is_immutable(root: Path) -> None:
    write_preset(root / "lamps" / "desk.yaml", "watts: 5")
    store = make_store(root)
    store.reload()
    before = store.snapshot
    write_preset(root / "lamps" / "desk.yaml", "watts: 6")
    write_preset(root / "lamps" / "wall.yaml", "")
    store.reload()
    assert (before.get(LAMP_PRESETS), before.errors) == ({"desk": Lamp(5)}, ())
    assert store.snapshot is not before


def test_file_of_equal_size_written_in_place_is_detected(root: Path) -> None:
    path = root / "lamps" / "desk.yaml"
    path.write_text("watts: 5")
    os.utime(path, ns=(1, 1))
    store = make_store(root)
    store.reload()
    path.write_text("watts: 6")
    assert summarize(store.reload()) == [("lamp", "desk", "changed")]


def test_error_has_its_cause(root: Path) -> None:
    write_preset(root / "lamps" / "desk.yaml", "watts: x")
    store = make_store(root)
    store.reload()
    (error,) = store.snapshot.errors
    assert isinstance(error.cause, SchemaError)
    assert (error.path, error.line) == ("lamps/desk.yaml", 1)
