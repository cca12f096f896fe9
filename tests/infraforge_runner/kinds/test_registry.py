"""The kinds of jobs: who knows them, and what each differs in."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path

import pytest

import infraforge_runner.jobs
from infraforge_runner.infraforge.plan import AvailableTools
from infraforge_runner.jobs.directory import JobDirectory
from infraforge_runner.kinds.dry_run import DryRun
from infraforge_runner.kinds.live_run import LiveRun
from infraforge_runner.kinds.registry import KINDS
from tests.infraforge_runner.factories import make_spec, queued_status

JOBS = sorted(Path(next(iter(infraforge_runner.jobs.__path__))).glob("*.py"))
ALL_TOOLS = AvailableTools(checkout_problem=None, has_cdk=True, has_node=True, has_credentials=True)


def test_registry_has_each_kind_under_its_name() -> None:
    assert {name: kind.name for name, kind in KINDS.items()} == {"deploy": "deploy", "destroy": "destroy"}


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_jobs_modules_name_no_kind(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant):
            assert node.value not in KINDS, f"{path.name}:{node.lineno}"


@pytest.mark.parametrize("action", KINDS)
@pytest.mark.parametrize("dry_run", [False, True])
def test_create_run_chooses_live_or_dry_run(tmp_path: Path, action: str, dry_run: bool) -> None:
    spec = make_spec(action=action, dry_run=dry_run)
    directory = JobDirectory.create(tmp_path, spec, queued_status(), b"true")

    async def create() -> object:
        return KINDS[action].create_run(directory, spec, {})

    assert isinstance(asyncio.run(create()), DryRun if dry_run else LiveRun)


@pytest.mark.parametrize(("action", "script"), [("deploy", "diff.sh"), ("destroy", None)])
def test_dry_run_checks_templates_of_deploy_only(tmp_path: Path, action: str, script: str | None) -> None:
    spec = make_spec(action=action, dry_run=True, own_script=False)
    run = KINDS[action].create_run(JobDirectory(tmp_path), spec, {})
    assert isinstance(run, DryRun)
    path = run.check_script(ALL_TOOLS)
    assert (None if path is None else path.name) == script
