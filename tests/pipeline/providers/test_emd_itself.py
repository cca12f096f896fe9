"""The real easy-model-deployer against the same endpoint: what it says of each model, and what we say."""

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
from tests.pipeline.providers.on_emd import World, emd, preset

EMD = "easy-model-deployer==0.9.47"  # its pins are exact, hence a venv of its own
ASK = """
import json
from emd.sdk.status import get_model_status
print("\\n" + json.dumps(get_model_status(), default=str))
"""
GEMMA, QWEN, BIG, TARS = "gemma-3-4b-it", "Qwen2-VL-7B-Instruct", "Qwen2.5-VL-32B-Instruct", "UI-TARS-1.5-7B"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Told = dict[str, str]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a venv with EMD in it."""
    folder = tmp_path_factory.mktemp("emd")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", EMD], check=True)
    return folder / "bin" / "python"


async def emds(python: Path, aws: Aws) -> tuple[Told, Told]:
    """What EMD says, by `<model id>/<tag>`: the executions it calls in progress, the stacks it calls completed."""
    environ = {**aws.only(), "HOME": os.devnull}
    child = await asyncio.create_subprocess_exec(
        python, "-c", ASK, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await child.communicate()
    assert child.returncode == 0, err.decode()
    told: dict[str, list[dict[str, Any]]] = json.loads(out.splitlines()[-1])
    running = {_name(row): f"{row['status']} {row['stage_name']}" for row in told["inprogress"]}
    return running, {_name(row): row["stack_status"] for row in told["completed"]}


def _name(row: dict[str, Any]) -> str:
    return f"{row['model_id']}/{row['model_tag']}"


async def ours(world: World, *names: str) -> Told:
    """What we say of the same models."""
    found: Told = {}
    for name in names:
        model, tag = name.split("/")
        found[name] = (await world.provider.deployment(preset(model=model, tag=tag))).status
    return found


def test_we_agree_with_emd_on_what_is_deployed_and_in_progress(python: Path) -> None:
    async def compare() -> None:
        async with emd() as world:
            await world.aws.deploy_emd(GEMMA)
            await world.aws.deploy_emd(GEMMA, "blue", service="ecs", status="UPDATE_COMPLETE")
            await world.aws.deploy_emd(BIG, status="DELETE_IN_PROGRESS")
            await world.aws.deploy_emd(QWEN, status="InProgress", stage="Build")
            await world.aws.deploy_emd(QWEN, "red", status="Failed", stage="Build")
            await world.aws.deploy_emd(TARS, status="ROLLBACK_COMPLETE")
            running, completed = await emds(python, world.aws)
            assert running == {f"{QWEN}/dev": "InProgress Build", f"{QWEN}/red": "Failed Build"}
            assert {name: status.split("\n")[0] for name, status in completed.items()} == {
                f"{GEMMA}/dev": "CREATE_COMPLETE",
                f"{GEMMA}/blue": "UPDATE_COMPLETE",
                f"{BIG}/dev": "DELETE_IN_PROGRESS",
                f"{TARS}/dev": "ROLLBACK_COMPLETE",
            }
            assert await ours(world, *running, *completed) == {
                f"{QWEN}/dev": "in_progress",
                f"{QWEN}/red": "failed",
                f"{GEMMA}/dev": "deployed",
                f"{GEMMA}/blue": "deployed",
                f"{BIG}/dev": "deleting",
                f"{TARS}/dev": "failed",
            }

    asyncio.run(compare())


def test_where_we_differ_on_purpose_it_is_as_the_list_in_docs_says(python: Path) -> None:
    async def compare() -> None:
        async with emd() as world:
            await world.aws.deploy_emd(GEMMA)
            await world.aws.deploy_emd(QWEN, status="Failed", stage="Deploy")
            await world.aws.deploy_emd(BIG, status="CREATE_FAILED")
            await world.aws.deploy_emd(TARS, status="Stopped", stage="Build")
            world.aws.page = 20
            await world.aws.fill(stacks=30)
            running, completed = await emds(python, world.aws)
            # Not those that failed to deploy; and of one that was stopped, the stage that it came through first.
            assert running == {f"{TARS}/dev": "Stopped Source"}
            assert completed == {}  # what it looks for stands on the second page
            assert await ours(world, f"{GEMMA}/dev", f"{QWEN}/dev", f"{BIG}/dev", f"{TARS}/dev") == {
                f"{GEMMA}/dev": "deployed",
                f"{QWEN}/dev": "failed",
                f"{BIG}/dev": "failed",
                f"{TARS}/dev": "failed",
            }

    asyncio.run(compare())
