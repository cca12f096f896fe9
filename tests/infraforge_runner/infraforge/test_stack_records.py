"""Records of stacks: names in use, what a failed job changes, and which stack a destroy deletes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.async_tests import slow_async_test
from tests.infraforge_runner.local_cloudformation import local_aws
from tests.jobs import get_log, post_json, submit, wait_for_job, write_hyperpod_preset
from tests.running_server import RunningServer, running_server

FORGES = {"eks": {"instances": [{"id": "small"}]}}
CONFIG = {"global": {"stackName": "forgeline-small"}, "enabledForges": ["small"], "forges": FORGES, "size": 1}
OVERRIDES = {
    "region": {"env": "AWS_REGION"},
    "tag": {"env": "CLUSTER_TAG"},
    "stack": {"env": "STACK_NAME"},
    "size": {"env": "SIZE", "type": "integer", "sets": ["size"]},
}
FAIL_IF_LARGE = "[ $SIZE -lt 9 ] || { echo 'too large'; exit 1; }"
SHOW_CONFIG = "cat config.json; echo in $AWS_REGION"


def write_preset(tmp_path: Path, name: str = "small", **keys: Any) -> None:
    keys = {"deploy": FAIL_IF_LARGE, "destroy": SHOW_CONFIG, "config": CONFIG, "overrides": OVERRIDES, **keys}
    write_hyperpod_preset(tmp_path / "presets", name, **keys)


async def run_job(
    server: RunningServer, action: str = "deploy", confirm: str | None = None, **overrides: Any
) -> dict[str, Any]:
    body = {"overrides": overrides, **({"confirm": confirm} if confirm else {})}
    return await wait_for_job(server, (await submit(server, action, **body))["job_id"])


async def list_stacks(server: RunningServer) -> list[dict[str, Any]]:
    stacks: list[dict[str, Any]] = (await server.get("/api/hyperpod/stacks")).json["stacks"]
    return stacks


@slow_async_test
async def test_deploy_of_names_of_other_stack_is_rejected(tmp_path: Path) -> None:
    write_preset(tmp_path)
    async with running_server(tmp_path) as server:
        first = await run_job(server, tag="x")
        assert first["status"] == "succeeded"
        for dry_run in (True, False):
            body = {"overrides": {"stack": "x"}, "dry_run": dry_run}
            status, response = await post_json(server, "/api/hyperpod/deploy", body)
            assert (status, response["code"]) == (409, "stack_locked")
            assert "The EKS cluster small-x would be made twice" in response["error"]
            assert f"forgeline-small-x in us-east-1, by job {first['job_id']}" in response["error"]
        assert (await run_job(server, tag="x"))["status"] == "succeeded"  # the same stack again is an update
        assert (await run_job(server, stack="x", region="eu-west-1"))["status"] == "succeeded"
        assert (await run_job(server, "destroy", tag="x", confirm="forgeline-small-x"))["status"] == "succeeded"
        assert (await run_job(server, stack="x"))["status"] == "succeeded"


@slow_async_test
async def test_deploy_of_names_of_unfinished_job_is_rejected(tmp_path: Path) -> None:
    write_preset(tmp_path, deploy="until [ -e go ]; do sleep 0.05; done")
    async with running_server(tmp_path) as server:
        first = await submit(server, overrides={"tag": "x"})
        status, response = await post_json(
            server, "/api/hyperpod/deploy", {"overrides": {"stack": "x"}, "dry_run": False}
        )
        assert (status, first["job_id"] in response["error"]) == (409, True)
        await post_json(server, f"/api/hyperpod/jobs/{first['job_id']}/cancel")
        await wait_for_job(server, first["job_id"])


@slow_async_test
async def test_failed_deploy_keeps_applied_config_in_record(tmp_path: Path) -> None:
    write_preset(tmp_path)
    async with running_server(tmp_path) as server:
        applied_job = await run_job(server, size=5)
        assert (await run_job(server, size=9))["status"] == "failed"
        (stack,) = await list_stacks(server)
        assert (stack["state"], stack["job_id"]) == ("uncertain", applied_job["job_id"])
        dry = await wait_for_job(server, (await submit(server, dry_run=True, overrides={"size": 9}))["job_id"])
        assert dry["result"]["plan"]["diff"] == ["- size: 5", "+ size: 9"]
        assert "What the last job at the stack forgeline-small leaves" in dry["result"]["plan"]["unchecked"][-1]
        destroy_job = await run_job(server, "destroy", confirm="forgeline-small")
        assert '"size": 5' in (await get_log(server, destroy_job["job_id"])).decode()


@slow_async_test
async def test_dry_run_diff_of_never_deployed_stack_is_whole_config(tmp_path: Path) -> None:
    write_preset(tmp_path)
    async with running_server(tmp_path) as server:
        failed = await run_job(server, size=9)
        (stack,) = await list_stacks(server)
        assert (stack["state"], stack["since"], stack["job_id"]) == ("uncertain", None, failed["job_id"])
        dry = await wait_for_job(server, (await submit(server, dry_run=True))["job_id"])
        assert "+ size: 1" in dry["result"]["plan"]["diff"]
        assert not [line for line in dry["result"]["plan"]["diff"] if line.startswith("-")]


@slow_async_test
async def test_destroy_uses_region_of_record(tmp_path: Path) -> None:
    write_preset(tmp_path)
    async with running_server(tmp_path) as server:
        await run_job(server, region="eu-west-1")
        await run_job(server, region="eu-west-2")
        status, response = await post_json(
            server, "/api/hyperpod/destroy", {"confirm": "forgeline-small", "dry_run": False}
        )
        assert (status, response["code"]) == (400, "invalid_request")
        assert "stands in eu-west-1 and eu-west-2" in response["error"]
        destroy_job = await run_job(server, "destroy", confirm="forgeline-small", region="eu-west-1")
        assert destroy_job["region"] == "eu-west-1"
        destroy_job = await run_job(server, "destroy", confirm="forgeline-small")
        assert destroy_job["region"] == "eu-west-2"
        assert (await get_log(server, destroy_job["job_id"])).decode().endswith("in eu-west-2\n")
        assert await list_stacks(server) == []


@slow_async_test
async def test_destroy_by_other_preset_uses_recorded_config(tmp_path: Path) -> None:
    write_preset(tmp_path)
    write_preset(tmp_path, "other", config={"global": {"stackName": "another"}, "size": 3})
    async with running_server(tmp_path) as server:
        await run_job(server, size=7)
        body = {"preset": "other", "overrides": {"stack": "forgeline-small"}, "confirm": "forgeline-small"}
        destroy_job = await wait_for_job(server, (await submit(server, "destroy", **body))["job_id"])
        assert '"size": 7' in (await get_log(server, destroy_job["job_id"])).decode()
        assert await list_stacks(server) == []


@slow_async_test
async def test_unreadable_record_is_ignored_and_replaced(tmp_path: Path) -> None:
    write_preset(tmp_path)
    async with running_server(tmp_path) as server:
        await run_job(server)
        (record,) = (tmp_path / "data" / "stacks").rglob("*.json")
        for content in (b"", b"\xff\xfe", b'{"stack_name": 5}', b"[]"):
            record.write_bytes(content)
            assert await list_stacks(server) == []
            dry = await wait_for_job(server, (await submit(server, dry_run=True))["job_id"])
            assert dry["status"] == "succeeded"
        assert (await run_job(server))["status"] == "succeeded"
        assert json.loads(record.read_bytes())["state"] == "standing"


@slow_async_test
async def test_outputs_unknown_to_cloudformation_are_read_from_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_preset(tmp_path, deploy=f"printf 'Outputs:\\nforgeline-small.Address = here\\n'; {FAIL_IF_LARGE}")
    with local_aws() as aws:
        for name, value in aws.environment.items():
            monkeypatch.setenv(name, value)
        async with running_server(tmp_path) as server:
            assert (await run_job(server))["result"]["outputs"] == {"Address": "here"}
            assert (await run_job(server, size=9))["status"] == "failed"
            (stack,) = await list_stacks(server)
            assert (stack["state"], stack["outputs"]) == ("uncertain", {"Address": "here"})
