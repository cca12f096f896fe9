"""HyperPod presets: every error of a file with its line, and what a request may override."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infraforge_runner.infraforge.presets import HyperPodPreset, Override, parse_preset
from pipeline.errors import InvalidRequest
from pipeline.presets.schema import SchemaError
from tests.async_tests import async_test
from tests.jobs import post_json, submit, wait_for_job, write_hyperpod_preset
from tests.running_server import RunningServer, running_server, scripted_model
from tests.sockets import Message, WebSocketClient, connect_websocket

ROOT = Path(__file__).resolve().parents[3]
MODELS = {"m": scripted_model("echo")}
TIMEOUT_SECONDS = 10.0  # seconds; a machine that has other work, too

CONFIG = "config:\n  size: 1\n  list: [{a: x}]\n  deeper: {a: {b: true}}\n"  # four lines
INVALID_FILES = {
    # name: the file, the line of its error, words of the message
    "empty": ("", 0, "expected a mapping"),
    "list": ("- a\n", 1, "expected a mapping"),
    "torn": ("config: {\n", 2, "not valid YAML"),
    "twice": ("region: us-east-1\nregion: us-east-1\n", 2, "a second time"),
    "unknown": ("description: x\nscript: {}\n", 2, "unknown field (known are description, region, timeout"),
    "description": ("description: 5\n", 1, "description: expected a string"),
    "region": ("timeout: 5\nregion: ../../etc\n", 2, "region:"),
    "region-newline": ('region: "us-east-1\\n"\n', 1, "region:"),
    "timeout-zero": ("timeout: 0\n", 1, "timeout:"),
    "timeout-long": ("timeout: 700000\n", 1, "timeout:"),
    "timeout-nan": ("timeout: .nan\n", 1, "timeout:"),
    "timeout-word": ("timeout: 2h\n", 1, "timeout: expected a number"),
    "config-list": ("config: []\n", 1, "config: expected a mapping"),
    "config-date": ("config:\n  a: 1\n  since: 2026-01-01\n", 3, "config.since: 2026-01-01 can't be written as JSON"),
    "config-nan": ("config:\n  a: [1, .nan]\n", 2, "config.a[1]: nan can't be written as JSON"),
    "config-huge": ("config:\n  a: 99999999999999999999\n", 2, "config.a: 9999"),
    "config-number": ("config:\n  1: 1\n", 1, "config: in a key: expected a string"),
    "overrides-list": ("overrides: [a]\n", 1, "overrides: expected a mapping"),
    "override-text": ("overrides:\n  a: A\n", 2, "overrides.a: expected a mapping"),
    "override-unknown": ("overrides:\n  a: {env: A}\n  b:\n    env: B\n    max: 1\n", 5, "overrides.b.max: unknown"),
    "config-key": ("config:\n  a:\n    on: 1\n", 2, "the key True is no string: put it into quotes"),
    "config-deep": ("config:\n  a: " + "[" * 60 + "]" * 60 + "\n", 2, "nested too deep"),
    "config-deeper": ("config:\n  a: " + "[" * 5000 + "]" * 5000 + "\n", 0, "not valid YAML"),
    "config-itself": ("config: &a\n  b: *a\n", 1, "contains itself"),
    "nul": ('description: x\nconfig: {a: "\\0"}\n', 2, "holds a NUL"),
    "surrogate": ('description: "\\uD800"\n', 1, "half of a surrogate pair"),
    "stack-path": ("region: us-east-1\nconfig:\n  global: {stackName: ../../../etc}\n", 2, "would be ../../../etc"),
    "stack-long": (f"config:\n  global: {{stackName: {'s' * 129}}}\n", 1, "AWS takes 128"),
    "scripts-unknown": ("scripts:\n  delete: x.sh\n", 2, "scripts.delete: unknown field"),
    "scripts-up": ("scripts:\n  deploy: a.sh\n  destroy: a/../../b.sh\n", 3, "scripts.destroy: expected a path inside"),
    "scripts-absolute": ("scripts:\n  deploy: /etc/passwd\n", 2, "scripts.deploy: expected a path inside"),
    "scripts-nothing": ('scripts:\n  deploy: ""\n', 2, "scripts.deploy: expected a path inside"),
    "serves-nothing": ("serves: {model: m}\n", 1, "serves.base_url: this field is required"),
    "serves-name": ("serves:\n  model: m\n  base_url: http://a\n  name: ../m\n", 4, "serves.name:"),
    "serves-name-newline": ('serves:\n  model: m\n  base_url: http://a\n  name: "m\\n"\n', 4, "serves.name:"),
    "serves-kind": ("serves: {model: m, base_url: x, capabilities: [smell]}\n", 1, "serves.capabilities"),
    "env-missing": ("overrides:\n  a: {type: string}\n", 2, "overrides.a.env: this field is required"),
    "env-lower": ("overrides:\n  a:\n    env: size\n", 3, "'size' is no name for a variable"),
    "env-equals": ("overrides:\n  a:\n    env: A=B\n", 3, "no name for a variable"),
    "env-twice": ("overrides:\n  a: {env: A}\n  b:\n    env: A\n", 4, "A is the variable of overrides.a already"),
    "type": ("overrides:\n  a:\n    env: A\n    type: float\n", 4, "expected one of 'boolean', 'integer', 'string'"),
    "bounds-type": ("overrides:\n  a:\n    env: A\n    minimum: 1\n", 2, "minimum and maximum are for integers"),
    "bounds-crossed": (
        "overrides:\n  a:\n    env: A\n    type: integer\n    minimum: 2\n    maximum: 1\n",
        5,
        "is above the maximum, 1",
    ),
    "bounds-huge": ("overrides:\n  a:\n    env: A\n    type: integer\n    maximum: 1e400\n", 5, "maximum:"),
    "pattern-type": ("overrides:\n  a: {env: A, type: integer, pattern: x}\n", 2, "a pattern is for strings"),
    "pattern-torn": ("overrides:\n  a:\n    env: A\n    pattern: (\n", 4, "no regular expression of RE2's: missing )"),
    "pattern-look": ("overrides:\n  a:\n    env: A\n    pattern: (?=x)\n", 4, "no regular expression of RE2's"),
    "enum-type": ("overrides:\n  a:\n    env: A\n    enum: [\n      x,\n      on]\n", 6, "True is not what the rest"),
    "enum-bounds": (
        "overrides:\n  a: {env: A, type: integer, maximum: 3, enum: [1, 4]}\n",
        2,
        "4 is not what the rest of the rule takes",
    ),
    "sets-between": (
        CONFIG + "overrides:\n  a:\n    env: A\n    sets:\n    - deeper.x.b\n",
        9,
        "config has no deeper.x",
    ),
    "sets-index": (CONFIG + "overrides:\n  a: {env: A, sets: [list.1.a]}\n", 6, "config has no list.1"),
    "sets-negative": (CONFIG + "overrides:\n  a: {env: A, sets: [list.-1.a]}\n", 6, "config has no list.-1"),
    "sets-digit": (CONFIG + "overrides:\n  a: {env: A, sets: [list.\u00b2.a]}\n", 6, "config has no list.\u00b2"),
    "sets-digits": (CONFIG + f"overrides:\n  a: {{env: A, sets: [list.{'9' * 5000}]}}\n", 6, "config has no list."),
    "sets-text": (CONFIG + "overrides:\n  a: {env: A, sets: [size, list.0.a.0]}\n", 6, "[1]: config has no list.0.a.0"),
    "sets-mapping": (CONFIG + "overrides:\n  a: {env: A, sets: [deeper.a]}\n", 6, "deeper.a of config is no single"),
}


def test_check_reports_each_error_with_file_and_line(tmp_path: Path) -> None:
    folder = tmp_path / "hyperpod"
    folder.mkdir()
    for name, (text, _, _) in INVALID_FILES.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "good.yaml").write_text(CONFIG + "overrides:\n  a: {env: A, sets: [list.0.a, deeper.a.b]}\n")
    (folder / ".hidden.yaml").write_text("[")
    result = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "--check", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (result.returncode, result.stderr) == (1, "")
    lines = {line.removeprefix("hyperpod/").partition(".yaml:")[0]: line for line in result.stdout.splitlines()}
    assert sorted(lines) == sorted(INVALID_FILES)
    places = {
        name: f"hyperpod/{name}.yaml:{line}: " if line else f"hyperpod/{name}.yaml: "
        for name, (_, line, _) in INVALID_FILES.items()
    }
    for name, (_, _, words) in INVALID_FILES.items():
        assert lines[name].startswith(places[name])
        assert words in lines[name]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "PATH",
            "HOME",
            "LD_PRELOAD",
            "LD_LIBRARY_PATH",
            "BASH_ENV",
            "BASH_FUNC_LS",
            "ENV",
            "IFS",
            "PS4",
            "SHELLOPTS",
        ),
        *("NODE_OPTIONS", "NODE_EXTRA_CA_CERTS", "JSII_RUNTIME", "PYTHONPATH", "PYTHONSTARTUP", "PERL5LIB", "RUBYOPT"),
        *("GLIBC_TUNABLES", "GIT_SSH_COMMAND", "CDPATH", "TMPDIR", "LC_ALL", "LANG", "FORGELINE_JOB"),
        *("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_REGION_", "AWS_CONFIG_FILE"),
    ],
)
def test_forbidden_variable_is_rejected(name: str) -> None:
    with pytest.raises(SchemaError, match=f"no request may set {name}"):
        parse_preset({"overrides": {"a": {"env": name}}})


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION", "PATHS", "HOMEPAGE", "A", "MODEL_PATH"])
def test_other_variable_is_accepted(name: str) -> None:
    assert parse_preset({"overrides": {"a": {"env": name}}}).overrides["a"].env == name


@pytest.mark.parametrize("path", ["a\0.sh", "..", "../a.sh", "a/../../b", "/a.sh", "//a.sh", "", ".", "./"])
def test_script_path_outside_presets_folder_is_rejected(path: str) -> None:
    with pytest.raises(SchemaError, match="expected a path inside the folder of presets"):
        parse_preset({"scripts": {"deploy": path}})


# --- overrides ------------------------------------------------------------------------------


def make_preset(**rule: Any) -> HyperPodPreset:
    return parse_preset({"overrides": {"a": {"env": "A", **rule}}})


CONSTRAINTS: dict[str, tuple[dict[str, Any], list[Any], list[Any]]] = {
    # name: the constraints, values that are accepted, values that are rejected
    "string": ({}, ["x", "$(id)", "../;", "é", "x" * 200], ["", "x" * 201, "a\nb", "a\0b", "\x1b[2J", "\u202eexe", 5]),
    "pattern": ({"pattern": "[a-z]+"}, ["abc"], ["abc1", "1abc", "a\nb", "abc\n", ""]),
    "anchored": ({"pattern": "^[a-z]+$"}, ["abc"], ["abc1", "abc\n", "\nabc"]),
    "either": ({"pattern": "a|ab"}, ["a", "ab"], ["abc", "b"]),
    "digits": ({"pattern": r"\d+"}, ["12"], ["\u0661\u0662", "1.0"]),
    "integer": ({"type": "integer"}, [0, -1, 2**53 - 1], [True, False, 1.0, "1", None, 2**53, math.nan, 2**64 - 1]),
    "bounds": ({"type": "integer", "minimum": 1, "maximum": 3}, [1, 3], [0, 4, True, 2.0, "2"]),
    "low": ({"type": "integer", "minimum": 0}, [0, 10**9], [-1, False]),
    "boolean": ({"type": "boolean"}, [True, False], [0, 1, "true", None, [True]]),
    "enum": ({"enum": ["a", "b"]}, ["a"], ["A", "ab", "", 0, ["a"], {"a": "a"}]),
    "numbers": ({"type": "integer", "enum": [0, 1]}, [0, 1], [True, False, 2, 1.0, "1"]),
}


@pytest.mark.parametrize("name", CONSTRAINTS)
def test_override_accepts_only_values_of_its_constraints(name: str) -> None:
    constraints, accepted, rejected = CONSTRAINTS[name]
    preset = make_preset(**constraints)
    for value in accepted:
        assert preset.validate_overrides({"a": value}) == {"a": value}
    for value in rejected:
        with pytest.raises(InvalidRequest, match=r"overrides\.a: expected"):
            preset.validate_overrides({"a": value})


def test_rejected_override_error_lists_constraints() -> None:
    preset = parse_preset(
        {
            "overrides": {
                "count": {"env": "N", "type": "integer", "minimum": 1, "maximum": 3},
                "kind": {"env": "KIND", "enum": ["a", "b"]},
            }
        }
    )
    with pytest.raises(InvalidRequest) as caught:
        preset.validate_overrides({"count": 4})
    assert caught.value.message == "overrides.count: expected an integer, at least 1, at most 3."
    with pytest.raises(InvalidRequest) as caught:
        preset.validate_overrides({"size": 4})
    assert "count (an integer, at least 1, at most 3); kind (a string, one of a, b)" in caught.value.message


def test_override_without_constraints_accepts_short_text() -> None:
    assert Override("A").constraint == "a string"


# --- watched like the other kinds -------------------------------------------------------------------


async def wait_for_change(websocket: WebSocketClient, change: str) -> Message:
    async with asyncio.timeout(TIMEOUT_SECONDS):
        while (message := await websocket.next_event("f")).get("change") != change:
            pass
    assert (message["type"], message["kind"], message["name"]) == ("preset", "hyperpod", "small")
    return message


async def get_catalogue(server: RunningServer) -> dict[str, Any]:
    answer = (await server.get("/api/hyperpod/presets")).json
    assert answer["presets"] == [preset["name"] for preset in answer["catalogue"]]
    return {preset["name"]: preset for preset in answer["catalogue"]}


@async_test
async def test_preset_change_applies_at_once_and_is_on_feed(tmp_path: Path) -> None:
    file = tmp_path / "presets" / "hyperpod" / "small.yaml"
    async with running_server(tmp_path, models=MODELS) as server, connect_websocket(server) as websocket:
        await websocket.send(op="subscribe", id="f", topics=["presets"])
        assert (await websocket.next_event("f"))["type"] == "snapshot"

        write_hyperpod_preset(tmp_path / "presets", description="first")
        await wait_for_change(websocket, "added")
        assert (await get_catalogue(server))["small"]["description"] == "first"

        write_hyperpod_preset(tmp_path / "presets", description="second")
        await wait_for_change(websocket, "changed")
        assert (await get_catalogue(server))["small"]["description"] == "second"

        file.write_text("description: third\ntimeout: soon\n")
        change = await wait_for_change(websocket, "rejected")
        assert change["error"].startswith("hyperpod/small.yaml:2: timeout: expected a number")
        assert (await get_catalogue(server))["small"]["description"] == "second"
        job = await wait_for_job(server, (await submit(server))["job_id"])
        assert job["status"] == "succeeded"

        file.unlink()
        await wait_for_change(websocket, "removed")
        assert await get_catalogue(server) == {}
        status, answer = await post_json(server, "/api/hyperpod/deploy", {})
        assert (status, answer["code"]) == (400, "unknown_preset")


@async_test
async def test_preset_catalogue_has_served_model(tmp_path: Path) -> None:
    serves = {"model": "Qwen/Qwen2-VL", "base_url": "http://${outputs.Dns}/v1", "name": "qwen"}
    write_hyperpod_preset(tmp_path / "presets", serves=serves)
    async with running_server(tmp_path, models=MODELS) as server:
        assert (await get_catalogue(server))["small"]["summary"]["serves"] == "Qwen/Qwen2-VL"


@async_test
async def test_preset_with_invalid_names_does_not_affect_others(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets")
    write_hyperpod_preset(tmp_path / "presets", "bad", config={"global": {"stackName": "../../x"}})
    async with running_server(tmp_path, models=MODELS) as server:
        assert list(await get_catalogue(server)) == ["small"]
        assert json.loads((await server.get("/api/hyperpod/presets")).content)["status"] == "success"
