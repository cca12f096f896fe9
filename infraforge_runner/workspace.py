"""The work directory of a job: InfraForge, its configuration, and what it reads beside it, as it wants them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pipeline.errors import Unavailable

FETCH: Final = "infraforge_runner/scripts/fetch_infraforge.sh"
_INSIDE: Final = Path("cmd/infraforge")
_BINARY: Final = "infraforge"
_LIFECYCLE: Final = "on_create.sh"


def check_checkout(checkout: Path | None) -> Path:
    """InfraForge's checkout, if it can be used. Raises Unavailable, with what to do."""
    if checkout is None:
        raise Unavailable(
            f"InfraForge is not set up: run {FETCH}, and start Forgeline with --infraforge and its folder."
        )
    folder = checkout / _INSIDE
    if not folder.is_dir():
        raise Unavailable(f"{checkout} is no checkout of InfraForge: run {FETCH} {checkout}")
    if not os.access(folder / _BINARY, os.X_OK) or not (folder / _BINARY).is_file():
        raise Unavailable(
            f"InfraForge is not built in {checkout}: run {FETCH} {checkout}, or its own scripts/build.sh."
        )
    if not (folder / _LIFECYCLE).is_file():
        raise Unavailable(f"{checkout} lacks {_INSIDE / _LIFECYCLE}, which every node runs: run {FETCH} {checkout}")
    return checkout


def fill(work: Path, config: Mapping[str, Any], checkout: Path | None) -> None:
    """Writes config.json, and lays InfraForge beside it; without a checkout, for a script that brings its own, not.

    Raises Unavailable, OSError.
    """
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (work / "config.json").write_text(text, encoding="utf-8")
    if checkout is not None:
        folder = check_checkout(checkout) / _INSIDE
        _lay(folder / _BINARY, work / _BINARY)
        shutil.copy(folder / _LIFECYCLE, work / _LIFECYCLE)


def clear(work: Path) -> None:
    """Takes away what only the run needed, 0.1 GB of it; the configuration stays."""
    with suppress(OSError):
        (work / _BINARY).unlink(missing_ok=True)
    shutil.rmtree(work / "cdk.out", ignore_errors=True)


def _lay(source: Path, target: Path) -> None:
    """The same file under another name, where that can be: it is large, and whoever builds it anew makes a new one."""
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system
        shutil.copy(source, target)
