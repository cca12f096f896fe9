"""What stands: which names are taken, what a failed job changes of it, where a destroy goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.aio import unhurried
from tests.infraforge_runner.cloudformation import local_aws
from tests.jobs import ended, log_of, post, submit, write_hyperpod
from tests.serving import Server, serving

FORGES = {"eks": {"instances": [{"id": "small"}]}}
CONFIG = {"global": {"stackName": "forgeline-small"}, "enabledForges": ["small"], "forges": FORGES, "size": 1}
OVERRIDES = {
    "region": {"env": "AWS_REGION"},
    "tag": {"env": "CLUSTER_TAG"},
    "stack": {"env": "STACK_NAME"},
    "size": {"env": "SIZE", "type": "integer", "sets": ["size"]},
}
LARGE = "[ $SIZE -lt 9 ] || { echo 'too large'; exit 1; }"
SHOW = "cat config.json; echo in $AWS_REGION"


def write(tmp_path: Path, name: str = "small", **keys: Any) -> None:
    keys = {"deploy": LARGE, "destroy": SHOW, "config": CONFIG, "overrides": OVERRIDES, **keys}
    write_hyperpod(tmp_path / "presets", name, **keys)


async def run(server: Server, action: str = "deploy", confirm: str | None = None, **overrides: Any) -> dict[str, Any]:
    body = {"overrides": overrides, **({"confirm": confirm} if confirm else {})}
    return await ended(server, (await submit(server, action, **body))["job_id"])


async def stacks(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await server.get("/api/hyperpod/stacks")).json["stacks"]
    return found


@unhurried
async def test_what_a_tag_names_and_a_stacks_name_names_alike_can_not_stand_twice(tmp_path: Path) -> None:
    write(tmp_path)
    async with serving(tmp_path) as server:
        first = await run(server, tag="x")
        assert first["status"] == "succeeded"
        for dry_run in (True, False):
            asked = {"overrides": {"stack": "x"}, "dry_run": dry_run}
            status, answer = await post(server, "/api/hyperpod/deploy", asked)
            assert (status, answer["code"]) == (409, "stack_locked")
            assert "The EKS cluster small-x would be made twice" in answer["error"]
            assert f"forgeline-small-x in us-east-1, by job {first['job_id']}" in answer["error"]
        assert (await run(server, tag="x"))["status"] == "succeeded"  # the same stack again is an update
        assert (await run(server, stack="x", region="eu-west-1"))["status"] == "succeeded"
        assert (await run(server, "destroy", tag="x", confirm="forgeline-small-x"))["status"] == "succeeded"
        assert (await run(server, stack="x"))["status"] == "succeeded"


@unhurried
async def test_names_are_taken_by_a_job_that_has_not_ended(tmp_path: Path) -> None:
    write(tmp_path, deploy="until [ -e go ]; do sleep 0.05; done")
    async with serving(tmp_path) as server:
        first = await submit(server, overrides={"tag": "x"})
        status, answer = await post(server, "/api/hyperpod/deploy", {"overrides": {"stack": "x"}, "dry_run": False})
        assert (status, first["job_id"] in answer["error"]) == (409, True)
        await post(server, f"/api/hyperpod/jobs/{first['job_id']}/cancel")
        await ended(server, first["job_id"])


@unhurried
async def test_a_failed_deploy_leaves_known_what_was_applied_before_it(tmp_path: Path) -> None:
    write(tmp_path)
    async with serving(tmp_path) as server:
        good = await run(server, size=5)
        assert (await run(server, size=9))["status"] == "failed"
        (stack,) = await stacks(server)
        assert (stack["state"], stack["job_id"]) == ("uncertain", good["job_id"])
        dry = await ended(server, (await submit(server, dry_run=True, overrides={"size": 9}))["job_id"])
        assert dry["result"]["plan"]["diff"] == ["- size: 5", "+ size: 9"]
        assert "What the last job at the stack forgeline-small leaves" in dry["result"]["plan"]["unchecked"][-1]
        gone = await run(server, "destroy", confirm="forgeline-small")
        assert '"size": 5' in (await log_of(server, gone["job_id"])).decode()


@unhurried
async def test_of_a_stack_that_never_stood_all_is_new(tmp_path: Path) -> None:
    write(tmp_path)
    async with serving(tmp_path) as server:
        failed = await run(server, size=9)
        (stack,) = await stacks(server)
        assert (stack["state"], stack["since"], stack["job_id"]) == ("uncertain", None, failed["job_id"])
        dry = await ended(server, (await submit(server, dry_run=True))["job_id"])
        assert "+ size: 1" in dry["result"]["plan"]["diff"]
        assert not [line for line in dry["result"]["plan"]["diff"] if line.startswith("-")]


@unhurried
async def test_a_destroy_goes_where_the_stack_stands(tmp_path: Path) -> None:
    write(tmp_path)
    async with serving(tmp_path) as server:
        await run(server, region="eu-west-1")
        await run(server, region="eu-west-2")
        status, answer = await post(server, "/api/hyperpod/destroy", {"confirm": "forgeline-small", "dry_run": False})
        assert (status, answer["code"]) == (400, "invalid_request")
        assert "stands in eu-west-1 and eu-west-2" in answer["error"]
        gone = await run(server, "destroy", confirm="forgeline-small", region="eu-west-1")
        assert gone["region"] == "eu-west-1"
        gone = await run(server, "destroy", confirm="forgeline-small")
        assert gone["region"] == "eu-west-2"
        assert (await log_of(server, gone["job_id"])).decode().endswith("in eu-west-2\n")
        assert await stacks(server) == []


@unhurried
async def test_a_stack_whose_preset_is_gone_goes_by_another(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, "other", config={"global": {"stackName": "another"}, "size": 3})
    async with serving(tmp_path) as server:
        await run(server, size=7)
        body = {"preset": "other", "overrides": {"stack": "forgeline-small"}, "confirm": "forgeline-small"}
        gone = await ended(server, (await submit(server, "destroy", **body))["job_id"])
        assert '"size": 7' in (await log_of(server, gone["job_id"])).decode()
        assert await stacks(server) == []


@unhurried
async def test_a_record_that_can_not_be_read_holds_nothing_up(tmp_path: Path) -> None:
    write(tmp_path)
    async with serving(tmp_path) as server:
        await run(server)
        (record,) = (tmp_path / "data" / "stacks").rglob("*.json")
        for content in (b"", b"\xff\xfe", b'{"stack_name": 5}', b"[]"):
            record.write_bytes(content)
            assert await stacks(server) == []
            dry = await ended(server, (await submit(server, dry_run=True))["job_id"])
            assert dry["status"] == "succeeded"
        assert (await run(server))["status"] == "succeeded"
        assert json.loads(record.read_bytes())["state"] == "standing"


@unhurried
async def test_outputs_that_cloudformation_does_not_know_are_those_that_the_script_has_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, deploy=f"printf 'Outputs:\\nforgeline-small.Address = here\\n'; {LARGE}")
    with local_aws() as aws:
        for name, value in aws.environment.items():
            monkeypatch.setenv(name, value)
        async with serving(tmp_path) as server:
            assert (await run(server))["result"]["outputs"] == {"Address": "here"}
            assert (await run(server, size=9))["status"] == "failed"
            (stack,) = await stacks(server)
            assert (stack["state"], stack["outputs"]) == ("uncertain", {"Address": "here"})
