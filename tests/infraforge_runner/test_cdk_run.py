"""The scripts with Node's CDK, against a local CloudFormation: deploy, fail, side by side, destroy."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from infraforge_runner import stack, workspace
from infraforge_runner.cdk import CdkProgress
from infraforge_runner.job import Progress
from infraforge_runner.presets import SCRIPTS
from infraforge_runner.rendering import Rendered, place
from tests.infraforge_runner.checkouts import TOOLS, make_checkout, needs_cdk
from tests.infraforge_runner.cloudformation import LocalAws, local_aws
from tests.infraforge_runner.test_rendering import ZONES, rendered

pytestmark = [needs_cdk, pytest.mark.timeout(240)]  # Node on a busy machine takes its time
REGION = "us-west-2"
BEGAN = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass
class Place:
    """Where jobs are run by hand."""

    aws: LocalAws
    checkout: Path
    folder: Path

    def make_work(self, name: str, given: Rendered, **stand_in: Any) -> Path:
        work = self.folder / name
        work.mkdir()
        workspace.fill(work, {**given.config, "standIn": stand_in}, self.checkout)
        return work

    async def run(self, script: str, work: Path) -> Ran:
        environment = {"PATH": f"{TOOLS}:{os.environ['PATH']}", "HOME": str(self.folder), **self.aws.environment}
        process = await asyncio.create_subprocess_exec(
            "bash",
            str(SCRIPTS / f"{script}.sh"),
            cwd=work,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert process.stdout is not None
        ran = Ran(CdkProgress(), b"")
        while piece := await process.stdout.read(65_536):
            ran.output += piece
            ran.cdk.read(piece)
        ran.code = await process.wait()
        return ran


@dataclass
class Ran:
    cdk: CdkProgress
    output: bytes
    code: int | None = None


def in_its_time(test: Callable[[Place], Coroutine[Any, Any, None]]) -> Callable[[Place], None]:
    """Makes an async test one that pytest can call; the CDK may take longer than other tests may."""

    @functools.wraps(test)
    def run(here: Place) -> None:
        asyncio.run(test(here))

    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with local_aws() as aws:
        for name, value in aws.environment.items():
            monkeypatch.setenv(name, value)
        yield Place(aws, make_checkout(tmp_path / "checkout"), tmp_path)


@in_its_time
async def test_two_clusters_stand_side_by_side_and_go_again(here: Place) -> None:
    one, two = rendered(region=REGION, cluster_tag="one"), rendered(region=REGION, cluster_tag="two")
    first = here.make_work("first", one, outputs={"NlbDns": "127.0.0.1"})
    second = here.make_work("second", two)

    shown = await here.run("diff", first)
    assert shown.code == 0, shown.output.decode()
    assert b"[+] AWS::IAM::Role KarpenterNodeRole" in shown.output
    assert await stack.status(REGION, one.stack_name) is None  # not even a change set of it is made

    ran = await here.run("deploy", first)
    assert ran.code == 0, ran.output.decode()
    assert (ran.cdk.phase, ran.cdk.progress, ran.cdk.failed) == ("done", Progress(6, 6), [])
    assert ran.cdk.outputs == await stack.outputs(REGION, one.stack_name)
    assert ran.cdk.outputs["NlbDns"] == "127.0.0.1"
    assert ran.cdk.outputs["HyperPodClusterNamehyperpod"] == "forgeline-small-one"

    assert (await here.run("deploy", second)).code == 0
    assert await stack.status(REGION, two.stack_name) == "CREATE_COMPLETE"

    gone = await here.run("destroy", first)
    assert (gone.code, gone.cdk.phase) == (0, "done"), gone.output.decode()
    assert await stack.status(REGION, one.stack_name) is None
    assert await stack.status(REGION, two.stack_name) == "CREATE_COMPLETE"


@in_its_time
async def test_a_stack_that_fails_shows_the_resource_and_the_reason(here: Place) -> None:
    here.aws.take_role(f"KarpenterNodeRole-small-late-{REGION}")
    given = rendered(region=REGION, cluster_tag="late", availability_zone="us-west-2c")
    work = here.make_work("work", given)
    workspace.fill(work, place(given.config, "us-west-2c", ZONES), here.checkout)
    ran = await here.run("deploy", work)
    assert (ran.code, ran.cdk.phase) == (1, "failed"), ran.output.decode()
    assert [failure.resource for failure in ran.cdk.failed] == ["KarpenterNodeRole"]
    assert ran.cdk.failed == await stack.failures(REGION, given.stack_name, BEGAN)
    assert "already exists" in ran.cdk.failed[0].reason
