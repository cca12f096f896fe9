"""A job's work directory: what InfraForge needs there, and the errors for an unusable checkout."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from infraforge_runner.infraforge import workspace
from pipeline.errors import Unavailable
from tests.infraforge_runner.sites import make_checkout


def test_populate_puts_config_binary_and_script_into_workspace(tmp_path: Path) -> None:
    checkout, work = make_checkout(tmp_path / "checkout"), tmp_path / "work"
    work.mkdir()
    workspace.populate(work, {"global": {"stackName": "s", "description": "über"}}, checkout)
    assert json.loads((work / "config.json").read_text(encoding="utf-8"))["global"]["description"] == "über"
    assert os.access(work / "infraforge", os.X_OK)
    assert (work / "on_create.sh").read_text() == "#!/bin/bash\n"
    assert workspace.require_checkout(checkout) == checkout


def test_rebuilt_binary_does_not_change_workspace(tmp_path: Path) -> None:
    checkout, work = make_checkout(tmp_path / "checkout"), tmp_path / "work"
    work.mkdir()
    workspace.populate(work, {}, checkout)
    before = (work / "infraforge").read_text()
    built = tmp_path / "new"
    built.write_text("new")
    built.replace(checkout / "cmd/infraforge/infraforge")
    assert (work / "infraforge").read_text() == before


def test_populate_without_checkout_writes_only_config(tmp_path: Path) -> None:
    workspace.populate(tmp_path, {}, None)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


BROKEN_CHECKOUTS: list[tuple[Callable[[Path], object], str]] = [
    (lambda inside: (inside / "infraforge").unlink(), "is not built in"),
    (lambda inside: (inside / "infraforge").chmod(0o644), "is not built in"),
    (lambda inside: (inside / "on_create.sh").unlink(), "lacks cmd/infraforge/on_create.sh"),
    (lambda inside: inside.rename(inside.with_name("other")), "is no checkout of InfraForge"),
]


@pytest.mark.parametrize(("spoil", "sentence"), BROKEN_CHECKOUTS)
def test_unusable_checkout_is_rejected_with_what_to_do(
    tmp_path: Path, spoil: Callable[[Path], object], sentence: str
) -> None:
    checkout = make_checkout(tmp_path / "checkout")
    spoil(checkout / "cmd" / "infraforge")
    with pytest.raises(Unavailable, match=f"{sentence}.*fetch_infraforge.sh"):
        workspace.populate(tmp_path, {}, checkout)


def test_missing_checkout_error_says_how_to_get_one() -> None:
    with pytest.raises(
        Unavailable, match=r"run infraforge_runner/infraforge/scripts/fetch_infraforge\.sh, and start .*--infraforge"
    ):
        workspace.require_checkout(None)
