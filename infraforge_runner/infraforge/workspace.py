"""The work directory of a job: InfraForge, its configuration, and the script that it reads beside them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pipeline.errors import Unavailable

FETCH_SCRIPT: Final = "infraforge_runner/infraforge/scripts/fetch_infraforge.sh"
_SUBFOLDER: Final = Path("cmd/infraforge")
_BINARY: Final = "infraforge"
_LIFECYCLE_SCRIPT: Final = "on_create.sh"


def require_checkout(checkout: Path | None) -> Path:
    """InfraForge's checkout, if it can be used. Raises Unavailable with what to do."""
    if checkout is None:
        raise Unavailable(
            f"InfraForge is not set up: run {FETCH_SCRIPT}, and start Forgeline with --infraforge and its folder."
        )
    folder = checkout / _SUBFOLDER
    if not folder.is_dir():
        raise Unavailable(f"{checkout} is no checkout of InfraForge: run {FETCH_SCRIPT} {checkout}")
    if not os.access(folder / _BINARY, os.X_OK) or not (folder / _BINARY).is_file():
        raise Unavailable(
            f"InfraForge is not built in {checkout}: run {FETCH_SCRIPT} {checkout}, or its own scripts/build.sh."
        )
    if not (folder / _LIFECYCLE_SCRIPT).is_file():
        raise Unavailable(
            f"{checkout} lacks {_SUBFOLDER / _LIFECYCLE_SCRIPT}, which every node runs: run {FETCH_SCRIPT} {checkout}"
        )
    return checkout


def populate(work: Path, config: Mapping[str, Any], checkout: Path | None) -> None:
    """Write config.json, and put InfraForge beside it, unless `checkout` is None: a preset's own script does without.

    Raises Unavailable, OSError.
    """
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
    (work / "config.json").write_text(text, encoding="utf-8")
    if checkout is not None:
        folder = require_checkout(checkout) / _SUBFOLDER
        _link_or_copy(folder / _BINARY, work / _BINARY)
        shutil.copy(folder / _LIFECYCLE_SCRIPT, work / _LIFECYCLE_SCRIPT)


def _link_or_copy(source: Path, target: Path) -> None:
    """Link the file, which is large, or copy it. A build replaces the source, and so leaves the link as it is."""
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system
        shutil.copy(source, target)
