"""Models of deployed stacks: added once they answer, named as the preset says, removed with their stack."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.async_tests import slow_async_test
from tests.jobs import submit, wait_for_job, write_hyperpod_preset
from tests.running_server import RunningServer, running_server, scripted_model
from tests.sockets import WebSocketClient, connect_websocket
from tests.upstream import Upstream, json_response

MODELS = {"claude": scripted_model("echo")}
TIMEOUT_SECONDS = 20.0  # seconds; a machine that has other work, too


def write_preset(tmp_path: Path, upstream: Upstream, serves: dict[str, Any], name: str = "small", **keys: Any) -> None:
    """A preset whose script prints the model's address as the CDK prints a stack's outputs."""
    script = f"printf ' ✅  {name}-stack\\n\\nOutputs:\\n{name}-stack.Address = {upstream.base_url}\\n'"
    serves = {"base_url": "${outputs.Address}", **serves}
    write_hyperpod_preset(tmp_path / "presets", name, deploy=script, destroy="true", serves=serves, **keys)


async def wait_for_message(websocket: WebSocketClient, **fields: Any) -> dict[str, Any]:
    """The first message of the feed with these fields."""
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while not fields.items() <= (message := await websocket.next_event("f")).items():
            pass
        return message


async def deploy(server: RunningServer, preset: str = "small") -> dict[str, Any]:
    job = await wait_for_job(server, (await submit(server, preset=preset))["job_id"])
    assert job["status"] == "succeeded", job
    return job


async def destroy(server: RunningServer, preset: str = "small") -> None:
    job = await submit(server, "destroy", preset=preset, confirm=f"{preset}-stack")
    assert (await wait_for_job(server, job["job_id"]))["status"] == "succeeded"


async def subscribe_models(websocket: WebSocketClient) -> None:
    await websocket.send(op="subscribe", id="f", topics=["models"])
    assert (await websocket.next_event("f"))["type"] == "snapshot"


@pytest.mark.parametrize(
    ("serves", "name"),
    [
        ({"model": "m", "name": "my-model"}, "my-model"),
        ({"model": "Qwen/Qwen2.5-VL 7B"}, "qwen-qwen2.5-vl-7b"),
        ({"model": "../../etc/passwd"}, "etc-passwd"),
    ],
    ids=["named", "from-the-model", "path"],
)
@slow_async_test
async def test_deployed_model_answers_until_destroy(tmp_path: Path, serves: dict[str, Any], name: str) -> None:
    async with Upstream() as upstream:
        upstream.response = json_response("from the cluster")
        write_preset(tmp_path, upstream, {"capabilities": ["text"], **serves})
        async with running_server(tmp_path, models=MODELS) as server, connect_websocket(server) as websocket:
            await subscribe_models(websocket)
            job = await deploy(server)
            assert job["result"]["outputs"] == {"Address": upstream.base_url}
            assert (await wait_for_message(websocket, type="model", name=name))["availability"] == "available"
            response = await server.post("/api/multi-inference", {"text": "hi", "models": ["claude", name]})
            texts = [result["response"]["content"][0]["text"] for result in response.json["results"]]
            assert texts == ["hi", "from the cluster"]
            assert upstream.requests[-1].body["model"] == serves["model"]
            await destroy(server)
            await wait_for_message(websocket, type="model", name=name, availability="removed")
            assert (await server.post(f"/api/models/{name}", {"text": "hi"})).status == 404
    assert not list((tmp_path / "data").rglob("*.yaml"))


@slow_async_test
async def test_deployed_model_survives_server_restart(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        upstream.response = json_response("from the cluster")
        write_preset(tmp_path, upstream, {"model": "m", "capabilities": ["text"]})
        async with running_server(tmp_path, models=MODELS) as server, connect_websocket(server) as websocket:
            await subscribe_models(websocket)
            await deploy(server)
            await wait_for_message(websocket, type="model", name="m")
        async with running_server(tmp_path, models=MODELS) as server:
            assert (await server.post("/api/models/m", {"text": "hi"})).text == "from the cluster"


@slow_async_test
async def test_two_stacks_with_same_model_serve_two_models(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        upstream.response = json_response("hello")
        for preset in ("small", "large"):
            write_preset(tmp_path, upstream, {"model": "m", "capabilities": ["text"]}, preset)
        async with running_server(tmp_path, models=MODELS) as server, connect_websocket(server) as websocket:
            await subscribe_models(websocket)
            await deploy(server, "small")
            await wait_for_message(websocket, type="model", name="m")
            await deploy(server, "large")
            await wait_for_message(websocket, type="model", name="m-large-stack")
            await destroy(server, "small")
            await wait_for_message(websocket, type="model", name="m", availability="removed")
            assert (await server.post("/api/models/m-large-stack", {"text": "hi"})).status == 200


@slow_async_test
async def test_dry_run_or_missing_output_adds_no_model(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        upstream.response = json_response("hello")
        write_preset(tmp_path, upstream, {"model": "lost", "base_url": "${outputs.Other}"}, "lost")
        write_preset(tmp_path, upstream, {"model": "planned"}, "planned")
        write_preset(tmp_path, upstream, {"model": "last", "capabilities": ["text"]}, "last")
        async with running_server(tmp_path, models=MODELS) as server, connect_websocket(server) as websocket:
            await subscribe_models(websocket)
            await deploy(server, "lost")
            await wait_for_job(server, (await submit(server, preset="planned", dry_run=True))["job_id"])
            await deploy(server, "last")
            await wait_for_message(websocket, type="model", name="last")
            names = [model["name"] for model in (await server.get("/api/models")).json["models"]]
            assert names == ["claude", "last"]


@slow_async_test
async def test_stacks_with_same_long_name_in_several_regions_have_own_models(tmp_path: Path) -> None:
    config = {"global": {"stackName": "S" * 100}}
    names = ["m", "m-" + "s" * 58, "m-" + "s" * 58 + "-2"]
    async with Upstream() as upstream:
        upstream.response = json_response("hello")
        for preset, region in (("a", "eu-west-1"), ("b", "eu-west-2"), ("c", "eu-west-3")):
            serves = {"model": "m", "capabilities": ["text"]}
            write_preset(tmp_path, upstream, serves, preset, config=config, region=region)
        async with running_server(tmp_path, models=MODELS) as server, connect_websocket(server) as websocket:
            await subscribe_models(websocket)
            for preset, name in zip("abc", names, strict=True):
                await deploy(server, preset)
                await wait_for_message(websocket, type="model", name=name)
            response = await server.post("/api/multi-inference", {"text": "hi", "models": names})
            assert [result["status"] for result in response.json["results"]] == ["success"] * 3


@slow_async_test
async def test_foreign_file_among_generated_presets_is_removed_at_start(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "presets" / "models"
    folder.mkdir(parents=True)
    (folder / "left.yaml").write_bytes(b"\xff\xfe")
    (folder / "gone.yaml").write_text("provider: scripted\nmodel: echo\n")
    async with running_server(tmp_path, models=MODELS) as server, connect_websocket(server) as websocket:
        await subscribe_models(websocket)
        await wait_for_message(websocket, type="model", name="gone", availability="removed")
        assert not list(folder.iterdir())
