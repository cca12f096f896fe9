"""The models that deploys make available: there once they answer, called as the preset says, gone with their stack."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.aio import unhurried
from tests.jobs import ended, submit, write_hyperpod
from tests.serving import Server, says, serving
from tests.sockets import Talk, talking
from tests.upstream import Upstream, whole

MODELS = {"claude": says("echo")}
SOON = 20.0  # seconds; a machine that has other work, too


def write(tmp_path: Path, upstream: Upstream, serves: dict[str, Any], name: str = "small", **keys: Any) -> None:
    """A preset whose script says where the model is, as the CDK says a stack's outputs."""
    told = f"printf ' ✅  {name}-stack\\n\\nOutputs:\\n{name}-stack.Address = {upstream.base_url}\\n'"
    serves = {"base_url": "${outputs.Address}", **serves}
    write_hyperpod(tmp_path / "presets", name, deploy=told, destroy="true", serves=serves, **keys)


async def told(talk: Talk, **fields: Any) -> dict[str, Any]:
    """The first message of the feed that says this."""
    async with asyncio.timeout(SOON):
        while not fields.items() <= (message := await talk.next("f")).items():
            pass
        return message


async def deploy(server: Server, preset: str = "small") -> dict[str, Any]:
    job = await ended(server, (await submit(server, preset=preset))["job_id"])
    assert job["status"] == "succeeded", job
    return job


async def destroy(server: Server, preset: str = "small") -> None:
    job = await submit(server, "destroy", preset=preset, confirm=f"{preset}-stack")
    assert (await ended(server, job["job_id"]))["status"] == "succeeded"


async def following(talk: Talk) -> None:
    await talk.say(op="subscribe", id="f", topics=["models"])
    assert (await talk.next("f"))["type"] == "snapshot"


@pytest.mark.parametrize(
    ("serves", "name"),
    [
        ({"model": "m", "name": "my-model"}, "my-model"),
        ({"model": "Qwen/Qwen2.5-VL 7B"}, "qwen-qwen2.5-vl-7b"),
        ({"model": "../../etc/passwd"}, "etc-passwd"),
    ],
    ids=["named", "from-the-model", "path"],
)
@unhurried
async def test_what_was_deployed_answers_beside_the_others_until_it_is_destroyed(
    tmp_path: Path, serves: dict[str, Any], name: str
) -> None:
    async with Upstream() as upstream:
        upstream.answer = whole("from the cluster")
        write(tmp_path, upstream, {"capabilities": ["text"], **serves})
        async with serving(tmp_path, models=MODELS) as server, talking(server) as talk:
            await following(talk)
            job = await deploy(server)
            assert job["result"]["outputs"] == {"Address": upstream.base_url}
            assert (await told(talk, type="model", name=name))["availability"] == "available"
            answer = await server.post("/api/multi-inference", {"text": "hi", "models": ["claude", name]})
            texts = [one["response"]["content"][0]["text"] for one in answer.json["results"]]
            assert texts == ["hi", "from the cluster"]
            assert upstream.requests[-1].body["model"] == serves["model"]
            await destroy(server)
            await told(talk, type="model", name=name, availability="removed")
            assert (await server.post(f"/api/models/{name}", {"text": "hi"})).status == 404
    assert not list((tmp_path / "data").rglob("*.yaml"))


@unhurried
async def test_the_next_server_has_the_model_too(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        upstream.answer = whole("from the cluster")
        write(tmp_path, upstream, {"model": "m", "capabilities": ["text"]})
        async with serving(tmp_path, models=MODELS) as server, talking(server) as talk:
            await following(talk)
            await deploy(server)
            await told(talk, type="model", name="m")
        async with serving(tmp_path, models=MODELS) as server:
            assert (await server.post("/api/models/m", {"text": "hi"})).text == "from the cluster"


@unhurried
async def test_two_stacks_that_serve_one_model_serve_two(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        upstream.answer = whole("hello")
        for preset in ("small", "large"):
            write(tmp_path, upstream, {"model": "m", "capabilities": ["text"]}, preset)
        async with serving(tmp_path, models=MODELS) as server, talking(server) as talk:
            await following(talk)
            await deploy(server, "small")
            await told(talk, type="model", name="m")
            await deploy(server, "large")
            await told(talk, type="model", name="m-large-stack")
            await destroy(server, "small")
            await told(talk, type="model", name="m", availability="removed")
            assert (await server.post("/api/models/m-large-stack", {"text": "hi"})).status == 200


@unhurried
async def test_a_model_of_a_dry_run_or_of_no_known_place_is_none(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        upstream.answer = whole("hello")
        write(tmp_path, upstream, {"model": "lost", "base_url": "${outputs.Other}"}, "lost")
        write(tmp_path, upstream, {"model": "planned"}, "planned")
        write(tmp_path, upstream, {"model": "last", "capabilities": ["text"]}, "last")
        async with serving(tmp_path, models=MODELS) as server, talking(server) as talk:
            await following(talk)
            await deploy(server, "lost")
            await ended(server, (await submit(server, preset="planned", dry_run=True))["job_id"])
            await deploy(server, "last")
            await told(talk, type="model", name="last")
            names = [model["name"] for model in (await server.get("/api/models")).json["models"]]
            assert names == ["claude", "last"]


@unhurried
async def test_of_stacks_with_long_names_in_several_regions_each_has_its_model(tmp_path: Path) -> None:
    config = {"global": {"stackName": "S" * 100}}
    names = ["m", "m-" + "s" * 58, "m-" + "s" * 58 + "-2"]
    async with Upstream() as upstream:
        upstream.answer = whole("hello")
        for preset, region in (("a", "eu-west-1"), ("b", "eu-west-2"), ("c", "eu-west-3")):
            serves = {"model": "m", "capabilities": ["text"]}
            write(tmp_path, upstream, serves, preset, config=config, region=region)
        async with serving(tmp_path, models=MODELS) as server, talking(server) as talk:
            await following(talk)
            for preset, name in zip("abc", names, strict=True):
                await deploy(server, preset)
                await told(talk, type="model", name=name)
            answer = await server.post("/api/multi-inference", {"text": "hi", "models": names})
            assert [one["status"] for one in answer.json["results"]] == ["success"] * 3


@unhurried
async def test_what_is_no_generated_preset_of_ours_goes_at_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "presets" / "models"
    folder.mkdir(parents=True)
    (folder / "left.yaml").write_bytes(b"\xff\xfe")
    (folder / "gone.yaml").write_text("provider: scripted\nmodel: echo\n")
    async with serving(tmp_path, models=MODELS) as server, talking(server) as talk:
        await following(talk)
        await told(talk, type="model", name="gone", availability="removed")
        assert not list(folder.iterdir())
