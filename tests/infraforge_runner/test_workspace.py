"""A job's work directory: what InfraForge wants there, and what is said where it can't be had."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from infraforge_runner import workspace
from pipeline.errors import Unavailable
from tests.infraforge_runner.sites import make_checkout


def test_infraforge_finds_its_configuration_and_its_script_beside_it(tmp_path: Path) -> None:
    checkout, work = make_checkout(tmp_path / "checkout"), tmp_path / "work"
    work.mkdir()
    workspace.fill(work, {"global": {"stackName": "s", "description": "über"}}, checkout)
    assert json.loads((work / "config.json").read_text(encoding="utf-8"))["global"]["description"] == "über"
    assert os.access(work / "infraforge", os.X_OK)
    assert (work / "on_create.sh").read_text() == "#!/bin/bash\n"
    (work / "cdk.out").mkdir()
    workspace.clear(work)
    assert sorted(path.name for path in work.iterdir()) == ["config.json", "on_create.sh"]
    assert workspace.check_checkout(checkout) == checkout


def test_a_binary_that_is_built_anew_is_not_the_jobs(tmp_path: Path) -> None:
    checkout, work = make_checkout(tmp_path / "checkout"), tmp_path / "work"
    work.mkdir()
    workspace.fill(work, {}, checkout)
    before = (work / "infraforge").read_text()
    built = tmp_path / "new"
    built.write_text("new")
    built.replace(checkout / "cmd/infraforge/infraforge")
    assert (work / "infraforge").read_text() == before


def test_without_a_checkout_there_is_only_the_configuration(tmp_path: Path) -> None:
    workspace.fill(tmp_path, {}, None)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


BREAK: list[tuple[Callable[[Path], object], str]] = [
    (lambda inside: (inside / "infraforge").unlink(), "is not built in"),
    (lambda inside: (inside / "infraforge").chmod(0o644), "is not built in"),
    (lambda inside: (inside / "on_create.sh").unlink(), "lacks cmd/infraforge/on_create.sh"),
    (lambda inside: inside.rename(inside.with_name("other")), "is no checkout of InfraForge"),
]


@pytest.mark.parametrize(("spoil", "sentence"), BREAK)
def test_a_checkout_that_is_none_is_refused_with_what_to_do(
    tmp_path: Path, spoil: Callable[[Path], object], sentence: str
) -> None:
    checkout = make_checkout(tmp_path / "checkout")
    spoil(checkout / "cmd" / "infraforge")
    with pytest.raises(Unavailable, match=f"{sentence}.*fetch_infraforge.sh"):
        workspace.fill(tmp_path, {}, checkout)


def test_no_checkout_at_all_says_how_to_get_one() -> None:
    with pytest.raises(
        Unavailable, match=r"run infraforge_runner/scripts/fetch_infraforge\.sh, and start .*--infraforge"
    ):
        workspace.check_checkout(None)
