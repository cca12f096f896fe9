"""The documents, held to the code: schemas, tables of keys and options, and the README's own examples."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_origin

import msgspec
import pytest

from infraforge_runner.presets import HyperPodPreset
from pipeline.plugins import STAGES
from pipeline.presets import ModelPreset

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = re.compile(
    r"<!-- example: (?P<runner>\w+) -->\n```\w+\n(?P<code>.*?)```\n.*?<!-- output -->\n```text\n(?P<output>.*?)```",
    re.DOTALL,
)
RUNNERS = {"shell": ["bash", "-c"], "python": [sys.executable, "-c"], "node": ["node", "--input-type=module", "-e"]}
VOLATILE = re.compile(
    r'("(?:stream_id|time|id|request_id|job_id)":)"[^"]*"|("(?:\w+_ms|next_offset)":)[\d.]+|^(id: )\d+$', re.MULTILINE
)


def test_the_schemas_for_editors_are_those_of_the_code(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "docs/schema/make.py", tmp_path], cwd=ROOT, env=_environment(), check=True)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in (ROOT / "docs/schema").glob("*.json")}


@pytest.mark.parametrize("preset", [ModelPreset, HyperPodPreset])
def test_every_key_of_a_preset_is_explained(preset: type[msgspec.Struct]) -> None:
    text = (ROOT / "docs/PRESETS.md").read_text(encoding="utf-8")
    section = text.partition("## `hyperpod/NAME.yaml`")[2 if preset is HyperPodPreset else 0]
    assert [key for key in _keys(preset) if f"| `{key}` |" not in section] == []


def test_every_stage_is_listed_with_its_options() -> None:
    text = (ROOT / "docs/PRESETS.md").read_text(encoding="utf-8")
    assert [name for name in STAGES if f"| `{name}` |" not in text] == []


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with the shipped presets, as `make run` starts it."""
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("the embedded model is not installed")
    data = tmp_path_factory.mktemp("data")
    command = [sys.executable, "run.py", "--port", "0", "--data", str(data)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=_without_aws()) as server:
        assert server.stdout is not None
        yield server.stdout.readline().removeprefix("listening on ").strip()
        server.terminate()


@pytest.mark.parametrize("example", list(EXAMPLE.finditer(README)), ids=lambda found: str(found["runner"]))
def test_an_example_of_the_readme_does_what_it_prints(example: re.Match[str], address: str) -> None:
    runner = RUNNERS[example["runner"]]
    if shutil.which(runner[0]) is None:
        pytest.skip(f"{runner[0]} is not installed")
    code = example["code"].replace("http://localhost:5000", address)
    printed = subprocess.run([*runner, code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=50).stdout
    rest = VOLATILE.sub("~", printed)
    for piece in VOLATILE.sub("~", example["output"]).split("...\n"):
        before, found, rest = rest.partition(piece.strip())
        assert found, f"{piece!r} is not in what came: {before!r}"


def _keys(preset: Any, prefix: str = "") -> Iterator[str]:
    for field in msgspec.structs.fields(preset):
        options = getattr(field.type, "__args__", ()) or (field.type,)
        nested = [kind for kind in options if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
        if nested:
            item = "NAME." if get_origin(field.type) is dict else ""
            yield from _keys(nested[0], f"{prefix}{field.name}.{item}")
        else:
            yield prefix + field.name


def _without_aws() -> dict[str, str]:
    """The examples show what somebody without an account sees."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    files = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)
    return {**inherited, **files, "AWS_EC2_METADATA_DISABLED": "true"}


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}
