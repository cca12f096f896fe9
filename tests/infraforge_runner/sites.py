"""A place where clusters are deployed: a server in a process of its own, InfraForge's checkout, a CDK, a local AWS.

with local_aws() as aws:
    site = Site(aws, tmp_path)
    site.write_preset(outputs={"Dns": "127.0.0.1"}, serves={...})
    async with site.running() as server: ...

Where InfraForge's binary stands, the CDK app in tests/infraforge_app does; all else is what a user has.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from infraforge_runner import stack
from tests.infraforge_runner.cloudformation import LocalAws
from tests.processes import ROOT, Process, running
from tests.serving import says

APP = ROOT / "tests" / "infraforge_app"
TOOLS = APP / "node_modules" / ".bin"
SHIPPED = ROOT / "presets" / "hyperpod"

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


def write_shipped(presets: Path, name: str = "small", outputs: Mapping[str, str] | None = None, **keys: Any) -> None:
    """A preset that is shipped, with further keys; `outputs` are what its stack has besides."""
    preset = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text())
    preset["config"]["standIn"] = {"outputs": dict(outputs or {})}
    (presets / "hyperpod").mkdir(parents=True, exist_ok=True)
    (presets / "hyperpod" / f"{name}.yaml").write_text(yaml.safe_dump({**preset, **keys}))


@dataclass
class Site:
    aws: LocalAws
    folder: Path
    checkout: Path = field(init=False)

    def __post_init__(self) -> None:
        self.checkout = make_checkout(self.folder / "checkout")

    def write_preset(self, name: str = "small", outputs: Mapping[str, str] | None = None, **keys: Any) -> None:
        write_shipped(self.folder / "presets", name, outputs, **keys)

    def running(self) -> AbstractAsyncContextManager[Process]:
        environ = {"PATH": f"{TOOLS}:{os.environ['PATH']}", "HOME": str(self.folder), **self.aws.environment}
        models = {"claude": says("echo")}
        return running(self.folder, "--infraforge", str(self.checkout), models=models, environ=environ)

    async def stack_status(self, name: str) -> str | None:
        return await stack.status(self.aws.region, name)
