"""GET /api/emd/models and /api/emd/status: the models that EMD can deploy, and the status of each deployment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.providers.emd import discovery
from tests.async_tests import async_test
from tests.aws import Aws
from tests.running_server import RunningServer, running_server, scripted_model
from tests.server.checks import check_error

DEPLOY = {"instance": "g5.2xlarge"}
GEMMA = {"provider": "emd", "model": "gemma-3-4b-it", "region": "us-west-2", "deploy": DEPLOY}
MODELS: dict[str, dict[str, Any]] = {
    "gemma": GEMMA,
    "blue": GEMMA | {"tag": "blue", "capabilities": ["text", "image"], "limits": {"frames": 2}},
    "plain": {"provider": "emd", "model": "plain", "region": "us-west-2"},
    "other": scripted_model("echo"),
}


@asynccontextmanager
async def emd_server(folder: Path) -> AsyncIterator[tuple[RunningServer, Aws]]:
    async with Aws() as aws:
        with pytest.MonkeyPatch.context() as patch:
            aws.apply_environ(patch)
            patch.setattr(discovery, "REFRESH_SECONDS", 600.0)
            async with running_server(folder, models=MODELS) as server:
                yield server, aws


@async_test
async def test_emd_models_lists_deploy_commands_without_aws_calls(tmp_path: Path) -> None:
    async with emd_server(tmp_path) as (server, aws):
        models = (await server.get("/api/emd/models")).json["models"]
        assert [model["name"] for model in models] == ["blue", "gemma", "plain"]
        assert models[0].pop("limits")["frames"] == 2
        assert models[0] == {
            "name": "blue",
            "model": "gemma-3-4b-it",
            "tag": "blue",
            "region": "us-west-2",
            "capabilities": {"text": True, "image": True, "video": False, "stream": False},
            "instance": "g5.2xlarge",
            "engine": "vllm",
            "service": "sagemaker_realtime",
            "command": "emd deploy --model-id gemma-3-4b-it --model-tag blue --instance-type g5.2xlarge"
            " --engine-type vllm --service-type sagemaker_realtime",
        }
        assert models[2]["instance"] is None
        assert models[2]["command"] == "emd deploy --model-id plain --model-tag dev"
        assert not aws.requests


@async_test
async def test_emd_status_waits_for_first_discovery(tmp_path: Path) -> None:
    async with emd_server(tmp_path) as (server, aws):
        await aws.deploy_emd("gemma-3-4b-it", instance="g5.4xlarge")
        await aws.deploy_emd("gemma-3-4b-it", "blue", status="InProgress")
        models = (await server.get("/api/emd/status")).json["models"]
        assert [(model["name"], model["status"]) for model in models] == [
            ("blue", "in_progress"),
            ("gemma", "deployed"),
            ("plain", "not_deployed"),
        ]
        assert models[1] == {
            "name": "gemma",
            "model": "gemma-3-4b-it",
            "tag": "dev",
            "region": "us-west-2",
            "status": "deployed",
            "stack": "EMD-Model-gemma-3-4b-it",
            "instance": "g5.4xlarge",
            "engine": "vllm",
            "service": "sagemaker_realtime",
            "endpoint": "EMD-Model-gemma-3-4b-it-endpoint",
            "reason": None,
        }
        assert (models[0]["stack"], models[0]["reason"]) == (None, "it is being deployed (Build)")


@async_test
async def test_emd_status_of_ecs_deployment_has_router_address(tmp_path: Path) -> None:
    async with emd_server(tmp_path) as (server, aws):
        await aws.deploy_emd("gemma-3-4b-it", service="ecs")
        model = (await server.get("/api/emd/status")).json["models"][1]
        assert (model["service"], model["endpoint"]) == ("ecs", aws.router_url)


@async_test
async def test_emd_status_without_credentials_is_unknown_with_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with emd_server(tmp_path) as (server, _):
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        models = (await server.get("/api/emd/status")).json["models"]
        assert {model["status"] for model in models} == {"unknown"}
        assert "No AWS credentials were found" in models[0]["reason"]


@pytest.mark.parametrize("path", ["/api/emd/models", "/api/emd/status"])
@async_test
async def test_emd_endpoints_support_messagepack_and_reject_post(tmp_path: Path, path: str) -> None:
    async with emd_server(tmp_path) as (server, _):
        response = await server.get(path, Accept="application/msgpack")
        assert response.headers["Content-Type"] == "application/msgpack"
        assert [model["name"] for model in response.unpacked["models"]] == ["blue", "gemma", "plain"]
        check_error(await server.get(path, Accept="text/html"), 406, "not_acceptable", "application/json")
        check_error(await server.post(path, {"text": "hi"}), 405, "method_not_allowed")
