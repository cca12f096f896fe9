"""A checkout of InfraForge, in whose place the CDK app in tests/infraforge_app stands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

APP = Path(__file__).resolve().parents[1] / "infraforge_app"
TOOLS = APP / "node_modules" / ".bin"
"""Where its CDK is: for the PATH of a job."""

needs_cdk = pytest.mark.skipif(
    shutil.which("node") is None or not (TOOLS / "cdk").exists(),
    reason="needs Node, and the CDK in tests/infraforge_app (make test installs it where Node is there)",
)


def make_checkout(folder: Path) -> Path:
    inside = folder / "cmd" / "infraforge"
    inside.mkdir(parents=True)
    binary = inside / "infraforge"
    binary.write_text(f'#!/bin/sh\nexec node "{APP / "app.js"}"\n')
    binary.chmod(0o755)
    (inside / "on_create.sh").write_text("#!/bin/bash\n")
    return folder
