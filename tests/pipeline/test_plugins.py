"""Plugins: stages and providers of installed packages, and the errors that prevent a start."""

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
from pipeline.plugins import PROVIDERS, Plugins
from pipeline.plugins import STAGES as STAGES_BY_NAME
from pipeline.providers.bedrock.provider import BedrockProvider
from tests.async_tests import async_test, within_deadline
from tests.running_server import STAGES, scripted_model, write_presets

ROOT = Path(__file__).parents[2]

SHOUT = '''
"""A stage that sends the request in capitals and adds an option to every answer."""
from dataclasses import replace
from pipeline.messages import EventStream, Result

class Shout:
    def __init__(self, ending):
        self._ending = ending

    async def __call__(self, inference, proceed):
        messages = tuple(replace(m, parts=tuple(p.upper() for p in m.parts)) for m in inference.messages)
        events = await proceed(replace(inference, messages=messages))
        return EventStream(self._events(events), events.aclose)

    async def _events(self, events):
        async for batch in events:
            for event in batch:
                if isinstance(event, Result):
                    event.envelope["metadata"]["shouted"] = self._ending
            yield batch

def create(options, context):
    return Shout(options["ending"])
'''

PARROT = '''
"""A provider that repeats the request."""
from pipeline.messages import ModelResponse, Finish
from pipeline.stage import Availability

class Parrot:
    async def open(self, target, inference):
        return ModelResponse(self._batches(inference.messages[-1].text), streamed=True)

    async def _batches(self, text):
        yield [text]
        yield [Finish("end_turn")]

    async def availability(self, preset):
        return Availability("available", "it is a parrot")

def create(options, context):
    return Parrot()
'''


def install(folder: Path, name: str, entry_points: str, **modules: str) -> None:
    """Write what an installer writes: the package and its metadata."""
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
async def start_server(
    folder: Path, stages: list[Any] | None = None, **models: Any
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run run.py in a process that finds the packages in `site`."""
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


async def startup_error(folder: Path, stages: list[Any] | None = None) -> str:
    """Return the error output of a server that does not start."""
    async with start_server(folder, stages) as process:
        out, err = await within_deadline(process.communicate())
        assert (process.returncode, out) == (2, b"")
        return err.decode()


@async_test
async def test_installed_stage_and_provider_answer_requests(tmp_path: Path) -> None:
    entry_points = "[forgeline.stages]\nshout = loud.shout:create\n[forgeline.providers]\nparrot = loud.parrot:create\n"
    install(tmp_path / "site", "loud", entry_points, shout=SHOUT, parrot=PARROT)
    stages = ["decode_frames", "route_model", {"shout": {"ending": "!"}}, "invoke", "normalize_envelope"]
    polly = {"provider": "parrot", "model": "polly"}
    async with (
        start_server(tmp_path, stages, polly=polly, echo=scripted_model("echo")) as process,
        aiohttp.ClientSession() as http,
    ):
        assert process.stdout is not None
        address = (await within_deadline(process.stdout.readline())).decode().split()[-1]
        for model in ("polly", "echo"):
            async with http.post(f"{address}/api/models/{model}", json={"text": "hello you"}) as response:
                body = await response.json()
            assert response.status == 200
            assert body["response"]["content"][0]["text"] == "HELLO YOU"
            assert body["metadata"]["shouted"] == "!"
        async with http.get(f"{address}/api/models") as response:
            listed = {model["name"]: model for model in (await response.json())["models"]}
        assert listed["polly"]["provider"] == "parrot"


@pytest.mark.parametrize(("group", "name"), [("stages", "limit"), ("providers", "scripted")])
@async_test
async def test_plugin_with_built_in_name_prevents_start(tmp_path: Path, group: str, name: str) -> None:
    install(tmp_path / "site", "loud", f"[forgeline.{group}]\n{name} = loud.shout:create\n", shout=SHOUT)
    assert f"two plugins are named '{name}' in forgeline.{group}" in await startup_error(tmp_path)


@async_test
async def test_two_plugins_with_same_name_prevent_start(tmp_path: Path) -> None:
    for package in ("loud", "louder"):
        install(tmp_path / "site", package, f"[forgeline.stages]\nshout = {package}.shout:create\n", shout=SHOUT)
    assert "two plugins are named 'shout' in forgeline.stages" in await startup_error(tmp_path)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import nothing_like_it", "nothing_like_it"),
        ("raise OSError('no such device')", "no such device"),
        ("", "create"),
    ],
)
@async_test
async def test_plugin_that_fails_to_load_prevents_start(tmp_path: Path, code: str, reason: str) -> None:
    install(tmp_path / "site", "loud", "[forgeline.stages]\nshout = loud.shout:create\n", shout=code)
    error = await startup_error(tmp_path)
    assert "the plugin 'shout' of forgeline.stages (loud.shout:create) can't be loaded" in error
    assert reason in error
    assert "Traceback" not in error


@async_test
async def test_unknown_stage_prevents_start(tmp_path: Path) -> None:
    error = await startup_error(tmp_path, ["shout", *STAGES])
    assert "nobody provides a stage 'shout' (there are circuit_breaker, decode_frames, " in error
    assert "pipeline.yaml:2" in error


@async_test
async def test_stage_with_invalid_options_prevents_start(tmp_path: Path) -> None:
    error = await startup_error(tmp_path, [{"decode_frames": {"speed": 1}}, *STAGES[1:]])
    assert "speed: unknown field (known are max_pixels)" in error


@async_test
async def test_stage_factory_exception_prevents_start(tmp_path: Path) -> None:
    install(tmp_path / "site", "loud", "[forgeline.stages]\nshout = loud.shout:create\n", shout=SHOUT)
    error = await startup_error(tmp_path, ["shout", *STAGES])
    assert "the stage 'shout' can't be started: KeyError('ending')" in error


@pytest.mark.parametrize(
    ("stage", "provider", "error"),
    [
        ("limits", "x", "the stage 'shout' declares the key 'limits' of models/NAME.yaml, which every model has"),
        ("retry", "x", "the stage 'shout' declares the key 'retry' of models/NAME.yaml, which the stage 'retry' has"),
        ("x", "x", "the provider 'parrot' declares the key 'x' of models/NAME.yaml, which the stage 'shout' has"),
        (
            "region",
            "x",
            "the provider 'bedrock' declares the key 'region' of models/NAME.yaml, which the stage 'shout'",
        ),
    ],
)
@async_test
async def test_preset_key_of_two_plugins_prevents_start(tmp_path: Path, stage: str, provider: str, error: str) -> None:
    entry_points = "[forgeline.stages]\nshout = loud.shout:Shout\n[forgeline.providers]\nparrot = loud.parrot:Parrot\n"
    code = "from msgspec import Struct\nclass {}:\n    class ModelOptions(Struct):\n        {}: str = ''\n"
    modules = {"shout": code.format("Shout", stage), "parrot": code.format("Parrot", provider)}
    install(tmp_path / "site", "loud", entry_points, **modules)
    assert error in await startup_error(tmp_path)


def test_preset_key_of_two_providers_is_accepted() -> None:
    twin = Plugins(STAGES_BY_NAME, {**PROVIDERS, "twin": PROVIDERS["bedrock"]})
    twin.check_declarations()
    preset = twin.parse_model_preset({"provider": "twin", "model": "m", "region": "eu-west-1"})
    assert preset.options_of(BedrockProvider.ModelOptions).region == "eu-west-1"


@async_test
async def test_declaration_that_is_no_struct_prevents_start(tmp_path: Path) -> None:
    code = "class Shout:\n    Options = {'ending': str}\n"
    install(tmp_path / "site", "loud", "[forgeline.stages]\nshout = loud.shout:Shout\n", shout=code)
    error = await startup_error(tmp_path)
    assert "the stage 'shout' can't be used: its Options has to be a msgspec.Struct" in error


def test_options_of_undeclared_type_raise_lookup_error() -> None:
    preset = plugins.load_plugins().parse_model_preset({"provider": "scripted", "model": "echo"})
    with pytest.raises(LookupError, match="ModelOptions of no installed stage, nor of 'scripted'"):
        preset.options_of(BedrockProvider.ModelOptions)


def test_load_plugins_includes_built_in_stages_and_providers() -> None:
    installed = plugins.load_plugins()
    assert set(STAGES) <= set(installed.stages)
    assert {"emd", "local", "openai_compatible", "scripted"} <= set(installed.providers)
