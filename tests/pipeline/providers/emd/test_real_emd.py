"""The real easy-model-deployer against the same endpoint: its status of each model, and ours."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.aws import Aws
from tests.pipeline.providers.emd.helpers import EmdFixture, emd_fixture, make_emd_preset

EMD_REQUIREMENT = "easy-model-deployer==0.9.47"  # in a venv of its own, because its pins are exact
STATUS_SCRIPT = """
import json
from emd.sdk.status import get_model_status
print("\\n" + json.dumps(get_model_status(), default=str))
"""
GEMMA, QWEN, BIG, TARS = "gemma-3-4b-it", "Qwen2-VL-7B-Instruct", "Qwen2.5-VL-32B-Instruct", "UI-TARS-1.5-7B"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

StatusByModel = dict[str, str]


@pytest.fixture(scope="module")
def emd_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a venv with EMD in it."""
    folder = tmp_path_factory.mktemp("emd")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", EMD_REQUIREMENT], check=True)
    return folder / "bin" / "python"


async def read_emd_status(python: Path, aws: Aws) -> tuple[StatusByModel, StatusByModel]:
    """EMD's status by `<model id>/<tag>`: the executions in progress, and the completed stacks."""
    environ = {**aws.isolated_environ(), "HOME": os.devnull}
    child = await asyncio.create_subprocess_exec(
        python, "-c", STATUS_SCRIPT, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await child.communicate()
    assert child.returncode == 0, err.decode()
    status: dict[str, list[dict[str, Any]]] = json.loads(out.splitlines()[-1])
    running = {_model_key(row): f"{row['status']} {row['stage_name']}" for row in status["inprogress"]}
    return running, {_model_key(row): row["stack_status"] for row in status["completed"]}


def _model_key(row: dict[str, Any]) -> str:
    return f"{row['model_id']}/{row['model_tag']}"


async def read_our_status(emd: EmdFixture, *names: str) -> StatusByModel:
    """Our status of the same models."""
    statuses: StatusByModel = {}
    for name in names:
        model, tag = name.split("/")
        statuses[name] = (await emd.provider.deployment(make_emd_preset(model=model, tag=tag))).status
    return statuses


def test_status_agrees_with_emd(emd_python: Path) -> None:
    async def compare() -> None:
        async with emd_fixture() as emd:
            await emd.aws.deploy_emd(GEMMA)
            await emd.aws.deploy_emd(GEMMA, "blue", service="ecs", status="UPDATE_COMPLETE")
            await emd.aws.deploy_emd(BIG, status="DELETE_IN_PROGRESS")
            await emd.aws.deploy_emd(QWEN, status="InProgress", stage="Build")
            await emd.aws.deploy_emd(QWEN, "red", status="Failed", stage="Build")
            await emd.aws.deploy_emd(TARS, status="ROLLBACK_COMPLETE")
            running, completed = await read_emd_status(emd_python, emd.aws)
            assert running == {f"{QWEN}/dev": "InProgress Build", f"{QWEN}/red": "Failed Build"}
            assert {name: status.split("\n")[0] for name, status in completed.items()} == {
                f"{GEMMA}/dev": "CREATE_COMPLETE",
                f"{GEMMA}/blue": "UPDATE_COMPLETE",
                f"{BIG}/dev": "DELETE_IN_PROGRESS",
                f"{TARS}/dev": "ROLLBACK_COMPLETE",
            }
            assert await read_our_status(emd, *running, *completed) == {
                f"{QWEN}/dev": "in_progress",
                f"{QWEN}/red": "failed",
                f"{GEMMA}/dev": "deployed",
                f"{GEMMA}/blue": "deployed",
                f"{BIG}/dev": "deleting",
                f"{TARS}/dev": "failed",
            }

    asyncio.run(compare())


def test_status_differs_from_emd_as_documented(emd_python: Path) -> None:
    async def compare() -> None:
        async with emd_fixture() as emd:
            await emd.aws.deploy_emd(GEMMA)
            await emd.aws.deploy_emd(QWEN, status="Failed", stage="Deploy")
            await emd.aws.deploy_emd(BIG, status="CREATE_FAILED")
            await emd.aws.deploy_emd(TARS, status="Stopped", stage="Build")
            emd.aws.page_size = 20
            await emd.aws.add_unrelated(stacks=30)
            running, completed = await read_emd_status(emd_python, emd.aws)
            # EMD omits executions that failed in Deploy, and shows the first stage of one that was stopped.
            assert running == {f"{TARS}/dev": "Stopped Source"}
            assert completed == {}  # the stacks are on the second page
            assert await read_our_status(emd, f"{GEMMA}/dev", f"{QWEN}/dev", f"{BIG}/dev", f"{TARS}/dev") == {
                f"{GEMMA}/dev": "deployed",
                f"{QWEN}/dev": "failed",
                f"{BIG}/dev": "failed",
                f"{TARS}/dev": "failed",
            }

    asyncio.run(compare())
