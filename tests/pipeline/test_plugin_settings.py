"""A distribution is installed, and the settings of its stage and its provider are checked, described and in force."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.async_tests import async_test, wait_until
from tests.running_server import RunningServer, running_server, scripted_model
from tests.server.observability.scraping import scrape

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
OFFLINE = ["--no-index", "--no-deps", "--no-build-isolation"]

MODELS = {
    "twice": {"provider": "repeater", "model": "m", "times": 2},
    "echo": scripted_model("echo", watermark={"every": 2}),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the distribution is installed."""
    folder = tmp_path_factory.mktemp("sample")
    shutil.copytree(ROOT / "tests/sample_plugins", folder / "source")
    subprocess.run([*PIP, *OFFLINE, "--target", folder / "site", folder / "source"], check=True)
    return folder / "site"


@pytest.fixture
def journal(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the distribution importable. The file has a line for each call of its factories."""
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("SAMPLE_PLUGINS_JOURNAL", str(tmp_path / "journal"))
    (tmp_path / "journal").touch()
    return tmp_path / "journal"


def make_stages(mark: str) -> list[Any]:
    return ["decode_frames", "route_model", {"watermark": {"mark": mark}}, "limit", "invoke", "normalize_envelope"]


def write_pipeline(folder: Path, mark: str, separator: str) -> None:
    pipeline = {"stages": make_stages(mark), "providers": {"repeater": {"separator": separator}}}
    (folder / ".new").write_text(yaml.safe_dump(pipeline))
    (folder / ".new").replace(folder / "pipeline.yaml")


async def wait_until_marked(server: RunningServer, mark: str) -> None:
    """Return once a pipeline with this mark is in force."""
    await wait_until(lambda: server.services.runtime.describe("twice").get("watermark") == mark)


def run_python(script: str, *arguments: str | Path, site: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": f"{site}:{ROOT}"}
    return subprocess.run(
        [sys.executable, ROOT / script, *arguments], env=environ, stdout=subprocess.PIPE, text=True, check=False
    )


def check_presets(folder: Path, site: Path) -> list[str]:
    """The errors in a folder of presets."""
    process = run_python("run.py", "--check", folder, site=site)
    assert process.returncode == 1
    return process.stdout.splitlines()


def test_plugin_settings_are_checked_with_file_and_line(site: Path, journal: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/a.yaml").write_text("provider: repeater\nmodel: m\ntimes: 0\n")
    (tmp_path / "models/b.yaml").write_text("provider: repeater\nmodel: m\n")
    (tmp_path / "models/c.yaml").write_text("provider: scripted\nmodel: echo\nwatermark:\n  each: 2\n")
    (tmp_path / "models/d.yaml").write_text("provider: scripted\nmodel: echo\ntimes: 2\n")
    (tmp_path / "models/e.yaml").write_text("provider: absent\nmodel: m\nanything: 2\n")
    (tmp_path / "pipeline.yaml").write_text(
        "stages:\n- route_model\n- watermark:\n    mark: 3\n- invoke\n- normalize_envelope\n"
    )
    lines = check_presets(tmp_path, site)
    assert lines[:3] == [
        "models/a.yaml:3: times: expected an integer >= 1",
        "models/b.yaml:1: times: this field is required",
        "models/c.yaml:4: watermark.each: unknown field (known are every)",
    ]
    assert lines[3].startswith("models/d.yaml:3: times: unknown field (known are provider, model, capabilities, ")
    assert lines[4:] == ["pipeline.yaml:4: stages[1].watermark.mark: expected a string, got an integer"]
    (tmp_path / "pipeline.yaml").write_text(
        yaml.safe_dump({"providers": {"repeater": {"mark": 3}}, "stages": make_stages("x")})
    )
    (line,) = check_presets(tmp_path, site)[4:]
    assert line == "pipeline.yaml:3: providers.repeater.mark: unknown field (known are separator)"
    assert journal.read_text() == ""


def test_plugin_settings_are_in_editor_schemas(site: Path, tmp_path: Path) -> None:
    run_python("docs/schema/make.py", tmp_path, site=site).check_returncode()
    model, pipeline = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("model", "pipeline"))
    for preset in MODELS.values():
        jsonschema.validate(preset, model)
    jsonschema.validate({"stages": make_stages("#"), "providers": {"repeater": {"separator": "+"}}}, pipeline)
    wrong: list[tuple[Any, Any]] = [
        (model, {"provider": "repeater", "model": "m"}),
        (model, {"provider": "repeater", "model": "m", "times": 0}),
        (model, {"provider": "scripted", "model": "m", "times": 2}),
        (model, {"provider": "scripted", "model": "m", "watermark": {"each": 2}}),
        (pipeline, {"stages": [{"watermark": {}}]}),
        (pipeline, {"stages": ["watermarks"]}),
        (pipeline, {"stages": [], "providers": {"repeater": {"mark": "#"}}}),
    ]
    for schema, value in wrong:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(value, schema)


def test_plugin_settings_gauges_and_state_over_reloads(journal: Path, tmp_path: Path) -> None:
    answer_and_reload(tmp_path)
    assert sorted(journal.read_text().splitlines()) == ["repeater  ", "repeater +", "watermark #", "watermark *"]


@async_test
async def answer_and_reload(tmp_path: Path) -> None:
    async with running_server(tmp_path, models=MODELS, stages=make_stages("#")) as server:
        first = (await server.post("/api/models/twice", {"text": "Hi"})).json
        assert (first["response"]["content"][0]["text"], first["metadata"]["watermark"]) == ("Hi Hi", "#1")
        answers = [(await server.post("/api/models/echo", {"text": "Hi"})).json["metadata"] for _ in range(2)]
        assert [answer.get("watermark") for answer in answers] == [None, "#2"]
        numbers = await scrape(server)
        assert numbers("watermark_answers_total", model="twice") == 1
        assert numbers.by_label("repeater_calls", "model") == {"twice": 1}
        listed = {model["name"]: model for model in (await server.get("/api/models")).json["models"]}
        assert (listed["twice"]["times"], listed["twice"]["watermark"]) == (2, "#")
        assert "times" not in listed["echo"]

        write_pipeline(tmp_path / "presets", "*", "+")
        await wait_until_marked(server, "*")
        second = (await server.post("/api/models/twice", {"text": "Hi"})).json
        assert (second["response"]["content"][0]["text"], second["metadata"]["watermark"]) == ("Hi+Hi", "*2")
        numbers = await scrape(server)
        assert numbers("watermark_answers_total", model="twice") == 2
        assert numbers("repeater_calls", model="twice", separator="+") == 1

        (tmp_path / "presets/models/more.yaml").write_text(yaml.safe_dump(MODELS["twice"]))
        await wait_until(lambda: "more" in server.services.runtime.models)
