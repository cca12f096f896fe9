"""Stages and providers of other packages come in by the same door as the built-in ones."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pipeline import plugins
from tests.aio import asynchronous, soon
from tests.serving import STAGES, says, write_presets

ROOT = Path(__file__).parents[2]

SHOUT = '''
"""A stage that shouts: it asks in capitals, and adds what its options say to every answer."""
from dataclasses import replace
from pipeline.messages import Events, Result

class Shout:
    def __init__(self, ending):
        self._ending = ending

    async def __call__(self, inference, proceed):
        messages = tuple(replace(m, parts=tuple(p.upper() for p in m.parts)) for m in inference.messages)
        events = await proceed(replace(inference, messages=messages))
        return Events(self._tell(events), events.aclose)

    async def _tell(self, events):
        async for batch in events:
            for event in batch:
                if isinstance(event, Result):
                    event.envelope["metadata"]["shouted"] = self._ending
            yield batch

def create(options, context):
    return Shout(options["ending"])
'''

PARROT = '''
"""A provider that says what it was asked."""
from pipeline.messages import Reply, Stop
from pipeline.stage import Availability

class Parrot:
    async def open(self, route, inference):
        return Reply(self._say(inference.messages[-1].text), streamed=True)

    async def _say(self, text):
        yield [text]
        yield [Stop("end_turn")]

    async def availability(self, preset):
        return Availability("available", "it is a parrot")

def create(options, context):
    return Parrot()
'''


def install(folder: Path, name: str, entry_points: str, **modules: str) -> None:
    """What an installer leaves behind: the package, and what its metadata say of it."""
    package = folder / name
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for module, code in modules.items():
        (package / f"{module}.py").write_text(code)
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(entry_points)


@asynccontextmanager
async def started(
    folder: Path, stages: list[Any] | None = None, **models: Any
) -> AsyncIterator[asyncio.subprocess.Process]:
    """run.py in a process of its own, which finds what is installed in `site`."""
    write_presets(folder / "presets", models, stages)
    arguments = ["--port", "0", "--presets", str(folder / "presets"), "--data", str(folder / "data"), "--drain", "0.1"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "run.py"), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(folder / "site")},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def refusal(folder: Path, stages: list[Any] | None = None) -> str:
    """What it says when it does not start."""
    async with started(folder, stages) as process:
        out, err = await soon(process.communicate())
        assert (process.returncode, out) == (2, b"")
        return err.decode()


@asynchronous
async def test_an_installed_stage_and_provider_take_part(tmp_path: Path) -> None:
    points = "[forgeline.stages]\nshout = loud.shout:create\n[forgeline.providers]\nparrot = loud.parrot:create\n"
    install(tmp_path / "site", "loud", points, shout=SHOUT, parrot=PARROT)
    stages = ["decode_frames", "route_model", {"shout": {"ending": "!"}}, "invoke", "normalize_envelope"]
    polly = {"provider": "parrot", "model": "polly"}
    async with started(tmp_path, stages, polly=polly, echo=says("echo")) as process, aiohttp.ClientSession() as http:
        assert process.stdout is not None
        address = (await soon(process.stdout.readline())).decode().split()[-1]
        for model in ("polly", "echo"):
            async with http.post(f"{address}/api/models/{model}", json={"text": "hello you"}) as response:
                answer = await response.json()
            assert response.status == 200
            assert answer["response"]["content"][0]["text"] == "HELLO YOU"
            assert answer["metadata"]["shouted"] == "!"
        async with http.get(f"{address}/api/models") as response:
            listed = {model["name"]: model for model in (await response.json())["models"]}
        assert listed["polly"]["provider"] == "parrot"


@pytest.mark.parametrize(("group", "name"), [("stages", "limit"), ("providers", "scripted")])
@asynchronous
async def test_a_plugin_with_the_name_of_a_built_in_one_keeps_the_server_from_starting(
    tmp_path: Path, group: str, name: str
) -> None:
    install(tmp_path / "site", "loud", f"[forgeline.{group}]\n{name} = loud.shout:create\n", shout=SHOUT)
    assert f"two plugins are named '{name}' in forgeline.{group}" in await refusal(tmp_path)


@asynchronous
async def test_two_plugins_of_one_name_keep_it_from_starting(tmp_path: Path) -> None:
    for package in ("loud", "louder"):
        install(tmp_path / "site", package, f"[forgeline.stages]\nshout = {package}.shout:create\n", shout=SHOUT)
    assert "two plugins are named 'shout' in forgeline.stages" in await refusal(tmp_path)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import nothing_like_it", "nothing_like_it"),
        ("raise OSError('no such device')", "no such device"),
        ("", "create"),
    ],
)
@asynchronous
async def test_a_plugin_that_cannot_be_loaded_keeps_it_from_starting(tmp_path: Path, code: str, why: str) -> None:
    install(tmp_path / "site", "loud", "[forgeline.stages]\nshout = loud.shout:create\n", shout=code)
    said = await refusal(tmp_path)
    assert "the plugin 'shout' of forgeline.stages (loud.shout:create) can't be loaded" in said
    assert why in said
    assert "Traceback" not in said


@asynchronous
async def test_a_stage_that_nobody_provides_keeps_it_from_starting(tmp_path: Path) -> None:
    said = await refusal(tmp_path, ["shout", *STAGES])
    assert "nobody provides a stage 'shout' (there are circuit_breaker, decode_frames, " in said
    assert "pipeline.yaml:2" in said


@asynchronous
async def test_a_stage_that_refuses_its_options_keeps_it_from_starting(tmp_path: Path) -> None:
    said = await refusal(tmp_path, [{"decode_frames": {"speed": 1}}, *STAGES[1:]])
    assert "speed: unknown field (known are max_pixels)" in said


@asynchronous
async def test_a_factory_that_breaks_over_its_options_is_told_with_the_line(tmp_path: Path) -> None:
    install(tmp_path / "site", "loud", "[forgeline.stages]\nshout = loud.shout:create\n", shout=SHOUT)
    said = await refusal(tmp_path, ["shout", *STAGES])
    assert "pipeline.yaml:2: stages[0]: the stage 'shout' can't be made with these options: KeyError('ending')" in said


def test_the_built_in_ones_are_there_by_name() -> None:
    found = plugins.load()
    assert set(STAGES) <= set(found.stages)
    assert {"emd", "local", "openai_compatible", "scripted"} <= set(found.providers)
