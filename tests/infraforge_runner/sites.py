"""All that a deploy needs: a server in a process of its own, InfraForge's checkout, a CDK, a local AWS.

with local_aws() as aws:
    site = DeploySite(aws, tmp_path)
    site.write_preset(outputs={"Dns": "127.0.0.1"}, serves={...})
    async with site.running() as server: ...

The CDK app in tests/infraforge_app replaces InfraForge's binary; all else is what a user has.
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

from infraforge_runner.infraforge import cloudformation
from tests.infraforge_runner.local_cloudformation import LocalAws
from tests.processes import ROOT, ServerProcess, running_process
from tests.running_server import scripted_model

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


def write_shipped_preset(
    presets: Path, name: str = "small", outputs: Mapping[str, str] | None = None, **keys: Any
) -> None:
    """Write a shipped preset with further keys; `outputs` are added to its stack."""
    preset = yaml.safe_load((SHIPPED / f"{name}.yaml").read_text())
    preset["config"]["standIn"] = {"outputs": dict(outputs or {})}
    (presets / "hyperpod").mkdir(parents=True, exist_ok=True)
    (presets / "hyperpod" / f"{name}.yaml").write_text(yaml.safe_dump({**preset, **keys}))


@dataclass
class DeploySite:
    aws: LocalAws
    folder: Path
    checkout: Path = field(init=False)

    def __post_init__(self) -> None:
        self.checkout = make_checkout(self.folder / "checkout")

    def write_preset(self, name: str = "small", outputs: Mapping[str, str] | None = None, **keys: Any) -> None:
        write_shipped_preset(self.folder / "presets", name, outputs, **keys)

    def running(self) -> AbstractAsyncContextManager[ServerProcess]:
        environ = {"PATH": f"{TOOLS}:{os.environ['PATH']}", "HOME": str(self.folder), **self.aws.environment}
        models = {"claude": scripted_model("echo")}
        return running_process(self.folder, "--infraforge", str(self.checkout), models=models, environ=environ)

    async def stack_status(self, name: str) -> str | None:
        return await cloudformation.get_stack_status(self.aws.region, name)
