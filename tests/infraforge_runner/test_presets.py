"""HyperPod presets: every fault of a file with its line, and what a request may override."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infraforge_runner.presets import HyperPodPreset, Override, parse
from pipeline.errors import InvalidRequest
from pipeline.schema import SchemaError
from tests.aio import asynchronous
from tests.jobs import ended, post, submit, write_hyperpod
from tests.serving import Server, says, serving
from tests.sockets import Message, Talk, talking

ROOT = Path(__file__).resolve().parents[2]
MODELS = {"m": says("echo")}
SOON = 10.0  # seconds; a machine that has other work, too

CONFIG = "config:\n  size: 1\n  list: [{a: x}]\n  deeper: {a: {b: true}}\n"  # four lines
FAULTS = {
    # name: the file, the line of its fault, words of what is said
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


def test_check_says_every_fault_with_file_and_line(tmp_path: Path) -> None:
    folder = tmp_path / "hyperpod"
    folder.mkdir()
    for name, (text, _, _) in FAULTS.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "good.yaml").write_text(CONFIG + "overrides:\n  a: {env: A, sets: [list.0.a, deeper.a.b]}\n")
    (folder / ".hidden.yaml").write_text("[")
    ended = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "--check", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (ended.returncode, ended.stderr) == (1, "")
    said = {line.removeprefix("hyperpod/").partition(".yaml:")[0]: line for line in ended.stdout.splitlines()}
    assert sorted(said) == sorted(FAULTS)
    places = {
        name: f"hyperpod/{name}.yaml:{line}: " if line else f"hyperpod/{name}.yaml: "
        for name, (_, line, _) in FAULTS.items()
    }
    assert [
        said[name] for name in FAULTS if not (said[name].startswith(places[name]) and FAULTS[name][2] in said[name])
    ] == []


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
def test_no_request_may_set_what_a_scripts_safety_rests_on(name: str) -> None:
    with pytest.raises(SchemaError, match=f"no request may set {name}"):
        parse({"overrides": {"a": {"env": name}}})


@pytest.mark.parametrize("name", ["AWS_REGION", "AWS_DEFAULT_REGION", "PATHS", "HOMEPAGE", "A", "MODEL_PATH"])
def test_other_variables_may_be_set(name: str) -> None:
    assert parse({"overrides": {"a": {"env": name}}}).overrides["a"].env == name


@pytest.mark.parametrize("path", ["a\0.sh", "..", "../a.sh", "a/../../b", "/a.sh", "//a.sh", "", ".", "./"])
def test_a_scripts_path_stays_inside_the_folder(path: str) -> None:
    with pytest.raises(SchemaError, match="expected a path inside the folder of presets"):
        parse({"scripts": {"deploy": path}})


# --- what a rule takes ------------------------------------------------------------------------------


def made(**rule: Any) -> HyperPodPreset:
    return parse({"overrides": {"a": {"env": "A", **rule}}})


RULES: dict[str, tuple[dict[str, Any], list[Any], list[Any]]] = {
    # name: the rule, what it takes, what it refuses
    "string": ({}, ["x", "$(id)", "../;", "é", "x" * 200], ["", "x" * 201, "a\nb", "a\0b", "\x1b[2J", "\u202eexe", 5]),
    "pattern": ({"pattern": "[a-z]+"}, ["abc"], ["abc1", "1abc", "a\nb", "abc\n", ""]),
    "anchored": ({"pattern": "^[a-z]+$"}, ["abc"], ["abc1", "abc\n", "\nabc"]),
    "either": ({"pattern": "a|ab"}, ["a", "ab"], ["abc", "b"]),
    "digits": ({"pattern": r"\d+"}, ["12"], ["\u0661\u0662", "1.0"]),
    "integer": ({"type": "integer"}, [0, -1, 2**53], [True, False, 1.0, "1", None, 2**53 + 1, math.nan, 2**64 - 1]),
    "bounds": ({"type": "integer", "minimum": 1, "maximum": 3}, [1, 3], [0, 4, True, 2.0, "2"]),
    "low": ({"type": "integer", "minimum": 0}, [0, 10**9], [-1, False]),
    "boolean": ({"type": "boolean"}, [True, False], [0, 1, "true", None, [True]]),
    "enum": ({"enum": ["a", "b"]}, ["a"], ["A", "ab", "", 0, ["a"], {"a": "a"}]),
    "numbers": ({"type": "integer", "enum": [0, 1]}, [0, 1], [True, False, 2, 1.0, "1"]),
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_takes_what_it_says_and_nothing_else(name: str) -> None:
    rule, good, bad = RULES[name]
    preset = made(**rule)
    for value in good:
        assert preset.check_overrides({"a": value}) == {"a": value}
    for value in bad:
        with pytest.raises(InvalidRequest, match=r"overrides\.a: expected"):
            preset.check_overrides({"a": value})


def test_a_refusal_lists_what_is_allowed() -> None:
    preset = parse(
        {
            "overrides": {
                "count": {"env": "N", "type": "integer", "minimum": 1, "maximum": 3},
                "kind": {"env": "KIND", "enum": ["a", "b"]},
            }
        }
    )
    with pytest.raises(InvalidRequest) as refused:
        preset.check_overrides({"count": 4})
    assert refused.value.message == "overrides.count: expected an integer, at least 1, at most 3."
    with pytest.raises(InvalidRequest) as refused:
        preset.check_overrides({"size": 4})
    assert "count (an integer, at least 1, at most 3); kind (a string, one of a, b)" in refused.value.message


def test_a_rule_that_says_nothing_takes_short_text() -> None:
    assert Override("A").rule == "a string"


# --- watched like the other kinds -------------------------------------------------------------------


async def told(talk: Talk, change: str) -> Message:
    async with asyncio.timeout(SOON):
        while (message := await talk.next("f")).get("change") != change:
            pass
    assert (message["type"], message["kind"], message["name"]) == ("preset", "hyperpod", "small")
    return message


async def catalogue(server: Server) -> dict[str, Any]:
    answer = (await server.get("/api/hyperpod/presets")).json
    assert answer["presets"] == [preset["name"] for preset in answer["catalogue"]]
    return {preset["name"]: preset for preset in answer["catalogue"]}


@asynchronous
async def test_what_is_saved_counts_at_once_and_the_feed_says_so(tmp_path: Path) -> None:
    file = tmp_path / "presets" / "hyperpod" / "small.yaml"
    async with serving(tmp_path, models=MODELS) as server, talking(server) as talk:
        await talk.say(op="subscribe", id="f", topics=["presets"])
        assert (await talk.next("f"))["type"] == "snapshot"

        write_hyperpod(tmp_path / "presets", description="first")
        await told(talk, "added")
        assert (await catalogue(server))["small"]["description"] == "first"

        write_hyperpod(tmp_path / "presets", description="second")
        await told(talk, "changed")
        assert (await catalogue(server))["small"]["description"] == "second"

        file.write_text("description: third\ntimeout: soon\n")
        assert (await told(talk, "rejected"))["error"].startswith("hyperpod/small.yaml:2: timeout: expected a number")
        assert (await catalogue(server))["small"]["description"] == "second"
        job = await ended(server, (await submit(server))["job_id"])
        assert job["status"] == "succeeded"

        file.unlink()
        await told(talk, "removed")
        assert await catalogue(server) == {}
        status, answer = await post(server, "/api/hyperpod/deploy", {})
        assert (status, answer["code"]) == (400, "unknown_preset")


@asynchronous
async def test_the_catalogue_says_what_a_preset_serves(tmp_path: Path) -> None:
    serves = {"model": "Qwen/Qwen2-VL", "base_url": "http://${outputs.Dns}/v1", "name": "qwen"}
    write_hyperpod(tmp_path / "presets", serves=serves)
    async with serving(tmp_path, models=MODELS) as server:
        assert (await catalogue(server))["small"]["summary"]["serves"] == "Qwen/Qwen2-VL"


@asynchronous
async def test_a_preset_with_names_that_aws_refuses_spoils_no_other(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets")
    write_hyperpod(tmp_path / "presets", "bad", config={"global": {"stackName": "../../x"}})
    async with serving(tmp_path, models=MODELS) as server:
        assert list(await catalogue(server)) == ["small"]
        assert json.loads((await server.get("/api/hyperpod/presets")).content)["status"] == "success"
