"""Presets on disk: read, checked, and swapped whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec import Struct

from pipeline.schema import SchemaError, check
from pipeline.store import Change, Kind, PresetStore


class Lamp(Struct, frozen=True, forbid_unknown_fields=True):
    watts: int


LAMPS: Kind[Lamp] = Kind("lamp", "lamps", lambda value: check(value, Lamp))
HOUSE: Kind[Lamp] = Kind("house", "", lambda value: check(value, Lamp), single="house")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "lamps").mkdir()
    return tmp_path


def store(*roots: Path) -> PresetStore:
    return PresetStore(roots, [LAMPS, HOUSE])


def write(path: Path, content: str | bytes) -> None:
    """As editors do: another file, renamed over the old one, so that it always differs."""
    other = path.with_name(".new")
    other.write_bytes(content.encode() if isinstance(content, str) else content)
    other.replace(path)


def told(changes: list[Change]) -> list[tuple[str, str, str]]:
    return [(change.kind, change.name, change.change) for change in changes]


def faults(of: PresetStore) -> list[str]:
    return [str(fault) for fault in of.snapshot.faults]


def test_what_is_there_at_first_was_added(root: Path) -> None:
    write(root / "lamps" / "desk.yaml", "watts: 5")
    write(root / "house.yaml", "watts: 900")
    lamps = store(root)
    assert told(lamps.reload()) == [("lamp", "desk", "added"), ("house", "house", "added")]
    assert lamps.snapshot.of(LAMPS) == {"desk": Lamp(5)}
    assert lamps.snapshot.of(HOUSE) == {"house": Lamp(900)}


def test_nothing_new_is_no_change(root: Path) -> None:
    write(root / "lamps" / "desk.yaml", "watts: 5")
    lamps = store(root)
    lamps.reload()
    before = lamps.snapshot.of(LAMPS)["desk"]
    assert lamps.reload() == []
    assert lamps.snapshot.of(LAMPS)["desk"] is before


def test_a_file_that_says_something_else_is_changed(root: Path) -> None:
    write(root / "lamps" / "desk.yaml", "watts: 5")
    lamps = store(root)
    lamps.reload()
    write(root / "lamps" / "desk.yaml", "watts: 6")
    assert told(lamps.reload()) == [("lamp", "desk", "changed")]
    assert lamps.snapshot.of(LAMPS) == {"desk": Lamp(6)}


def test_a_file_that_says_the_same_in_other_words_is_not(root: Path) -> None:
    write(root / "lamps" / "desk.yaml", "watts: 5")
    lamps = store(root)
    lamps.reload()
    write(root / "lamps" / "desk.yaml", "# five\nwatts: 5")
    assert lamps.reload() == []


def test_a_deleted_file_takes_its_preset_away(root: Path) -> None:
    write(root / "lamps" / "desk.yaml", "watts: 5")
    lamps = store(root)
    lamps.reload()
    (root / "lamps" / "desk.yaml").unlink()
    assert told(lamps.reload()) == [("lamp", "desk", "removed")]
    assert lamps.snapshot.of(LAMPS) == {}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("\nwatts: many", "lamps/desk.yaml:2: watts: expected an integer, got a string"),
        ("watts: 5\nvolts: 3", "lamps/desk.yaml:2: volts: unknown field (known are watts)"),
        ("{}", "lamps/desk.yaml:1: watts: this field is required"),
        ("", "lamps/desk.yaml: expected a mapping (key: value); the file is empty or holds none"),
        ("watts: [", "lamps/desk.yaml:1: not valid YAML: expected the node content, but found '<stream end>'"),
    ],
)
def test_a_broken_file_is_rejected_once_and_its_last_good_version_stays(root: Path, content: str, fault: str) -> None:
    write(root / "lamps" / "desk.yaml", "watts: 5")
    lamps = store(root)
    lamps.reload()
    write(root / "lamps" / "desk.yaml", content)
    (change,) = lamps.reload()
    assert (change.change, str(change.fault)) == ("rejected", fault)
    assert lamps.snapshot.of(LAMPS) == {"desk": Lamp(5)}
    assert lamps.reload() == []
    assert faults(lamps) == [fault]


def test_a_broken_file_that_breaks_otherwise_is_rejected_again_and_a_mended_one_is_changed(root: Path) -> None:
    lamps, path = store(root), root / "lamps" / "desk.yaml"
    steps = {"watts: a": "rejected", "volts: 3": "rejected", "watts: 6": "added", "": "rejected", "watts: 7": "changed"}
    for content, change in steps.items():
        write(path, content)
        assert told(lamps.reload()) == [("lamp", "desk", change)]
    assert faults(lamps) == []


def test_a_broken_file_that_says_again_what_it_said_before_is_changed(root: Path) -> None:
    lamps, path = store(root), root / "lamps" / "desk.yaml"
    for content, change in {"watts: 5": "added", "watts: a": "rejected", "watts: 5 ": "changed"}.items():
        write(path, content)
        assert told(lamps.reload()) == [("lamp", "desk", change)]
    assert faults(lamps) == []


def test_a_file_that_was_never_right_and_is_deleted_is_removed(root: Path) -> None:
    lamps, path = store(root), root / "lamps" / "desk.yaml"
    write(path, "watts: a")
    assert told(lamps.reload()) == [("lamp", "desk", "rejected")]
    path.unlink()
    assert told(lamps.reload()) == [("lamp", "desk", "removed")]
    assert lamps.reload() == []


def test_a_broken_file_that_is_deleted_takes_its_last_good_version_along(root: Path) -> None:
    write(root / "lamps" / "desk.yaml", "watts: 5")
    lamps = store(root)
    lamps.reload()
    write(root / "lamps" / "desk.yaml", "")
    lamps.reload()
    (root / "lamps" / "desk.yaml").unlink()
    assert told(lamps.reload()) == [("lamp", "desk", "removed")]
    assert faults(lamps) == []


def test_a_file_that_cannot_be_read_keeps_what_it_last_said(root: Path) -> None:
    path = root / "lamps" / "desk.yaml"
    write(path, "watts: 5")
    lamps = store(root)
    lamps.reload()
    path.unlink()
    path.mkdir()
    assert told(lamps.reload()) == [("lamp", "desk", "rejected")]
    assert lamps.snapshot.of(LAMPS) == {"desk": Lamp(5)}
    assert faults(lamps) == ["lamps/desk.yaml: expected a regular file"]


@pytest.mark.parametrize("path", ["lamps/desk.yaml", "house.yaml"])
def test_a_link_to_nowhere_is_a_fault_until_there_is_something(root: Path, path: str) -> None:
    (root / path).symlink_to(root / "elsewhere")
    lamps = store(root)
    assert [change.change for change in lamps.reload()] == ["rejected"]
    assert faults(lamps) == [f"{path}: can't be read: No such file or directory"]
    assert lamps.reload() == []
    (root / "elsewhere").write_text("watts: 5")
    assert [change.change for change in lamps.reload()] == ["added"]


def test_a_link_that_points_elsewhere_is_a_change(root: Path) -> None:
    for name, watts in (("one", 1), ("two", 2)):
        (root / name).mkdir()
        (root / name / "desk.yaml").write_text(f"watts: {watts}")
    (root / "data").symlink_to("one")
    (root / "lamps" / "desk.yaml").symlink_to(root / "data" / "desk.yaml")
    lamps = store(root)
    lamps.reload()
    (root / "data").unlink()
    (root / "data").symlink_to("two")
    assert told(lamps.reload()) == [("lamp", "desk", "changed")]
    assert lamps.snapshot.of(LAMPS) == {"desk": Lamp(2)}


@pytest.mark.parametrize("name", ["Desk", "-desk", "a b", "ünï", "x" * 65])
def test_a_bad_name_is_a_fault(root: Path, name: str) -> None:
    write(root / "lamps" / f"{name}.yaml", "watts: 5")
    lamps = store(root)
    assert told(lamps.reload()) == [("lamp", name, "rejected")]
    assert f"{name!r} is no name for a preset" in faults(lamps)[0]
    assert lamps.snapshot.of(LAMPS) == {}


@pytest.mark.parametrize("name", ["desk", "0", "qwen2.5-vl-32b", "a_b", "x" * 64])
def test_a_good_name_may_have_dots_and_dashes(root: Path, name: str) -> None:
    write(root / "lamps" / f"{name}.yaml", "watts: 5")
    lamps = store(root)
    lamps.reload()
    assert list(lamps.snapshot.of(LAMPS)) == [name]


@pytest.mark.parametrize("file", [".desk.yaml", "desk.yml", "desk.yaml~", "desk.yaml.swp", "desk", ".yaml"])
def test_other_files_do_not_count(root: Path, file: str) -> None:
    (root / "lamps" / file).write_text("rubbish: [")
    assert store(root).reload() == []


def test_of_two_roots_the_first_counts(tmp_path: Path) -> None:
    users, made = tmp_path / "users", tmp_path / "made"
    for folder in (users, made):
        (folder / "lamps").mkdir(parents=True)
    write(users / "lamps" / "desk.yaml", "watts: 5")
    write(made / "lamps" / "desk.yaml", "watts: 6")
    write(made / "lamps" / "wall.yaml", "watts: 7")
    lamps = store(users, made)
    lamps.reload()
    assert lamps.snapshot.of(LAMPS) == {"desk": Lamp(5), "wall": Lamp(7)}
    (users / "lamps" / "desk.yaml").unlink()
    assert told(lamps.reload()) == [("lamp", "desk", "changed")]
    assert lamps.snapshot.of(LAMPS)["desk"] == Lamp(6)


def test_a_root_that_is_not_there_holds_nothing_and_may_come(tmp_path: Path) -> None:
    lamps = store(tmp_path / "later")
    assert lamps.reload() == []
    (tmp_path / "later" / "lamps").mkdir(parents=True)
    write(tmp_path / "later" / "lamps" / "desk.yaml", "watts: 5")
    assert told(lamps.reload()) == [("lamp", "desk", "added")]


def test_a_snapshot_is_not_changed_by_a_reload(root: Path) -> None:
    write(root / "lamps" / "desk.yaml", "watts: 5")
    lamps = store(root)
    lamps.reload()
    before = lamps.snapshot
    write(root / "lamps" / "desk.yaml", "watts: 6")
    write(root / "lamps" / "wall.yaml", "")
    lamps.reload()
    assert (before.of(LAMPS), before.faults) == ({"desk": Lamp(5)}, ())
    assert lamps.snapshot is not before


def test_a_file_of_the_same_size_written_in_place_is_seen(root: Path) -> None:
    path = root / "lamps" / "desk.yaml"
    path.write_text("watts: 5")
    os.utime(path, ns=(1, 1))
    lamps = store(root)
    lamps.reload()
    path.write_text("watts: 6")
    assert told(lamps.reload()) == [("lamp", "desk", "changed")]


def test_a_fault_knows_its_cause(root: Path) -> None:
    write(root / "lamps" / "desk.yaml", "watts: x")
    lamps = store(root)
    lamps.reload()
    (fault,) = lamps.snapshot.faults
    assert isinstance(fault.cause, SchemaError)
    assert (fault.path, fault.line) == ("lamps/desk.yaml", 1)
