"""Dry runs of the shipped presets on a machine without tools, credentials and InfraForge."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.async_tests import slow_async_test
from tests.infraforge_runner.infraforge.infraforge_schema import Eks, HyperPod, read_config
from tests.infraforge_runner.sites import SHIPPED
from tests.jobs import get_log, post_json, submit, wait_for_job
from tests.processes import ServerProcess, running_process
from tests.running_server import scripted_model

NAMES = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
OVERRIDES = {"region": "eu-west-1", "cluster_tag": "demo", "availability_zone": "eu-west-1b", "gpu_instance_count": 3}


@asynccontextmanager
async def running_without_tools(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ServerProcess]:
    """A server with the shipped presets, and with nothing else that a deploy needs."""
    shutil.copytree(SHIPPED, folder / "presets" / "hyperpod")
    (folder / "nothing").mkdir()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    environ = {
        "PATH": str(folder / "nothing"),
        "HOME": str(folder / "nothing"),
        "AWS_EC2_METADATA_DISABLED": "true",  # the tests' machine may have a role
    }
    async with running_process(folder, models={"m": scripted_model("echo")}, environ=environ) as server:
        yield server


@slow_async_test
async def test_dry_run_of_deploy_reports_plan_and_unchecked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert NAMES == ["large", "medium", "small"]
    async with running_without_tools(folder, monkeypatch) as server:
        for name in NAMES:
            job = await dry_run(server, "deploy", name)
            plan = job["result"]["plan"]
            made = read_config(plan["config"])
            assert (made.get(HyperPod).instanceCount, made.get(Eks).id) == (3, f"{name}-demo")
            assert f"+ global.stackName: forgeline-{name}-demo" in plan["diff"]
            assert f"CloudFormation stack forgeline-{name}-demo" in plan["names"]
            assert plan["command"].endswith("/deploy.sh")
            assert plan["environment"].items() >= {"AWS_REGION": "eu-west-1", "CLUSTER_TAG": "demo"}.items()
            for missing in ("--infraforge", "cdk is not on", "node is not on", "no credentials", "eu-west-1b was not"):
                assert any(missing in sentence for sentence in plan["unchecked"]), missing
            log = (await get_log(server, job["job_id"])).decode()
            for line in (*plan["names"], *plan["diff"], *plan["unchecked"]):
                assert f"  {line}\n" in log


@slow_async_test
async def test_dry_run_of_destroy_lists_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_without_tools(folder, monkeypatch) as server:
        for name in NAMES:
            plan = (await dry_run(server, "destroy", name))["result"]["plan"]
            assert plan["diff"] == []
            assert f"EKS cluster {name}-demo" in plan["names"]
            assert plan["command"].endswith("/destroy.sh")


@slow_async_test
async def test_live_run_without_infraforge_is_rejected_with_instructions(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_without_tools(folder, monkeypatch) as server:
        for action, confirm in (("deploy", None), ("destroy", "forgeline-small")):
            body = {"preset": "small", "dry_run": False, **({"confirm": confirm} if confirm else {})}
            status, answer = await post_json(server, f"/api/hyperpod/{action}", body)
            assert (status, answer["code"]) == (503, "unavailable")
            assert "fetch_infraforge.sh" in answer["error"]


async def dry_run(server: ServerProcess, action: str, preset: str) -> dict[str, Any]:
    submitted = await submit(server, action, preset=preset, dry_run=True, overrides=OVERRIDES)
    job = await wait_for_job(server, submitted["job_id"])
    assert (job["status"], job["result"]["returncode"]) == ("succeeded", 0), job
    return job
