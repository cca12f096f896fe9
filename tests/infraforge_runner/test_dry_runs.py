"""Dry runs of what is shipped, on a machine that has nothing: no tool, no credentials, no InfraForge."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.aio import unhurried
from tests.infraforge_runner.infraforge_schema import Eks, HyperPod, read
from tests.infraforge_runner.sites import SHIPPED
from tests.jobs import ended, log_of, post, submit
from tests.processes import Process, running
from tests.serving import says

NAMES = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
OVERRIDES = {"region": "eu-west-1", "cluster_tag": "demo", "availability_zone": "eu-west-1b", "gpu_instance_count": 3}


@asynccontextmanager
async def bare(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Process]:
    """A server with the shipped presets, and with nothing else."""
    shutil.copytree(SHIPPED, folder / "presets" / "hyperpod")
    (folder / "nothing").mkdir()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    environ = {
        "PATH": str(folder / "nothing"),
        "HOME": str(folder / "nothing"),
        "AWS_EC2_METADATA_DISABLED": "true",  # the tests' machine may have a role
    }
    async with running(folder, models={"m": says("echo")}, environ=environ) as server:
        yield server


@unhurried
async def test_each_shipped_preset_says_what_it_would_do_and_what_it_could_not_check(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert NAMES == ["large", "medium", "small"]
    async with bare(folder, monkeypatch) as server:
        for name in NAMES:
            job = await dry_run(server, "deploy", name)
            plan = job["result"]["plan"]
            made = read(plan["config"])
            assert (made.the(HyperPod).instanceCount, made.the(Eks).id) == (3, f"{name}-demo")
            assert f"+ global.stackName: forgeline-{name}-demo" in plan["diff"]
            assert f"CloudFormation stack forgeline-{name}-demo" in plan["names"]
            assert plan["command"].endswith("/deploy.sh")
            assert plan["environment"].items() >= {"AWS_REGION": "eu-west-1", "CLUSTER_TAG": "demo"}.items()
            for missing in ("--infraforge", "cdk is not on", "node is not on", "no credentials", "eu-west-1b was not"):
                assert any(missing in sentence for sentence in plan["unchecked"]), missing
            log = (await log_of(server, job["job_id"])).decode()
            for line in (*plan["names"], *plan["diff"], *plan["unchecked"]):
                assert f"  {line}\n" in log


@unhurried
async def test_each_says_what_a_destroy_would_take_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bare(folder, monkeypatch) as server:
        for name in NAMES:
            plan = (await dry_run(server, "destroy", name))["result"]["plan"]
            assert plan["diff"] == []
            assert f"EKS cluster {name}-demo" in plan["names"]
            assert plan["command"].endswith("/destroy.sh")


@unhurried
async def test_a_live_one_is_refused_with_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with bare(folder, monkeypatch) as server:
        for action, confirm in (("deploy", None), ("destroy", "forgeline-small")):
            body = {"preset": "small", "dry_run": False, **({"confirm": confirm} if confirm else {})}
            status, answer = await post(server, f"/api/hyperpod/{action}", body)
            assert (status, answer["code"]) == (503, "unavailable")
            assert "fetch_infraforge.sh" in answer["error"]


async def dry_run(server: Process, action: str, preset: str) -> dict[str, Any]:
    submitted = await submit(server, action, preset=preset, dry_run=True, overrides=OVERRIDES)
    job = await ended(server, submitted["job_id"])
    assert (job["status"], job["result"]["returncode"]) == ("succeeded", 0), job
    return job
