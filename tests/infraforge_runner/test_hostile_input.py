"""Hostile requests and presets: nothing is executed or read that should not be, and the server never hangs."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tests.async_tests import async_test
from tests.jobs import get_log, post_json, submit, wait_for_job, write_hyperpod_preset
from tests.running_server import HttpResponse, RunningServer, running_server, scripted_model

MODELS = {"m": scripted_model("echo")}
DEPLOY = "/api/hyperpod/deploy"
MAX_SECONDS = 10.0  # in which a server that is not blocked answers, on a busy machine too
FREE_OVERRIDE = {"free": {"env": "FREE"}}  # an override without a pattern


async def post_bytes(
    server: RunningServer, body: bytes, kind: str = "application/json", **headers: str
) -> HttpResponse:
    return await server.request("POST", DEPLOY, data=body, headers={"Content-Type": kind, **headers})


@asynccontextmanager
async def serving_preset(tmp_path: Path, **keys: Any) -> AsyncIterator[RunningServer]:
    write_hyperpod_preset(tmp_path / "presets", **keys)
    async with running_server(tmp_path, models=MODELS) as server:
        yield server


async def assert_rejected(server: RunningServer, answer: HttpResponse, *words: str) -> None:
    """The answer is 400 with an error, and there is no job."""
    assert (answer.status, answer.json["code"]) == (400, "invalid_request"), answer.content
    for word in words:
        assert word in answer.json["error"]
    assert "Traceback" not in answer.json["error"]
    assert (await server.get("/api/hyperpod/jobs")).json["jobs"] == []


# --- values ----------------------------------------------------------------------------------------


@async_test
async def test_override_value_reaches_script_unchanged_and_is_never_executed(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    values = [
        f"$(touch {proof})",
        f"`touch {proof}`",
        f"; touch {proof};",
        f"| touch {proof} &",
        f"a && touch {proof}",
        f"${{IFS}}$(touch${{IFS}}{proof})",
        f"() {{ :; }}; touch {proof}",
        f"x[$(touch {proof})]",
        "../../../../etc/passwd",
        "-rf --force",
        "* ? [a-z] ~ {1..9}",
        "'\"\\\\\\",
        "%s%n%x",
        "{{7*7}} ${outputs.Dns} <!-- -->",
        "é 漢字 🦊",
    ]
    names = [f"V{number}" for number in range(len(values))]
    overrides = {name.lower(): {"env": name} for name in names}
    bare = " ".join(f"${name}" for name in names)
    quoted = " ".join(f'"${name}"' for name in names)
    # The second line is how careless scripts write it.
    deploy = f"printf '%s\\0' {quoted} > values\necho {bare}\n"
    async with serving_preset(tmp_path, deploy=deploy, overrides=overrides) as server:
        overrides_sent = dict(zip(overrides, values, strict=True))
        job = await wait_for_job(server, (await submit(server, overrides=overrides_sent))["job_id"])
        assert (job["status"], job["overrides"]) == ("succeeded", overrides_sent)
        got = (tmp_path / "data" / "jobs" / job["job_id"] / "work" / "values").read_bytes()
        assert got.decode().split("\0")[:-1] == values
        job = await wait_for_job(server, (await submit(server, dry_run=True, overrides=overrides_sent))["job_id"])
        planned = job["result"]["plan"]["environment"]
        assert [planned[name] for name in names] == values
    assert not proof.exists()


HOSTILE: dict[str, Any] = {
    "newline": "a\nPATH=/tmp",
    "return": "a\rb",
    "nul": "a\0b",
    "escape": "\x1b]0;title\x07",
    "delete": "\x7f",
    "next-line": "a\x85b",
    "paragraph": "a\u2029b",
    "right-to-left": "a\u202egnp.exe",
    "zero-width": "a\u200bb",
    "byte-order": "\ufeffa",
    "long": "a" * 10_240,
    "empty": "",
    "list": ["a"],
    "map": {"a": "b"},
    "nothing": None,
    "boolean": True,
    "number": 5,
    "fraction": 1.5,
    "deep": json.loads("[" * 100 + "]" * 100),
}


@pytest.mark.parametrize("name", HOSTILE)
@async_test
async def test_override_that_is_no_short_line_is_rejected(tmp_path: Path, name: str) -> None:
    async with serving_preset(tmp_path, overrides=FREE_OVERRIDE) as server:
        body = {"dry_run": False, "overrides": {"free": HOSTILE[name]}}
        await assert_rejected(server, await server.post(DEPLOY, body), "overrides.free: expected a string")
        packed = await post_bytes(server, msgpack.packb(body), "application/msgpack")
        await assert_rejected(server, packed, "overrides.free: expected a string")


@pytest.mark.parametrize(
    "value",
    [
        b"NaN",
        b"Infinity",
        b"1e999",
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\xff\xfe"',
        b'"\xed\xa0\x80"',
        b"9" * 5000,
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
    ],
    ids=lambda value: value[:12].decode("latin-1").encode("unicode_escape").decode(),
)
@async_test
async def test_invalid_json_body_is_rejected(tmp_path: Path, value: bytes) -> None:
    async with serving_preset(tmp_path, overrides=FREE_OVERRIDE) as server:
        for key in ({}, {"Idempotency-Key": "k"}):
            answer = await post_bytes(server, b'{"dry_run": false, "overrides": {"free": ' + value + b"}}", **key)
            await assert_rejected(server, answer)


@pytest.mark.parametrize(
    "overrides",
    [
        {b"\xff": "a"},
        {5: "a"},
        {"free": b"\xff\xfe"},
        {"free": msgpack.ExtType(5, b"x")},
        {"free": msgpack.Timestamp(5, 5)},
        {"free": 2**64 - 1},
        {"free": float("nan")},
        {"free": {b"a": {None: 1}}},
    ],
    ids=repr,
)
@async_test
async def test_messagepack_without_json_equivalent_is_rejected(tmp_path: Path, overrides: dict[Any, Any]) -> None:
    async with serving_preset(tmp_path, overrides=FREE_OVERRIDE) as server:
        for key in ({}, {"Idempotency-Key": "k"}):
            body = msgpack.packb({"dry_run": False, "overrides": overrides})
            await assert_rejected(server, await post_bytes(server, body, "application/msgpack", **key))


@pytest.mark.parametrize(
    "name",
    ["LD_PRELOAD", "PATH", "BASH_ENV", "FREE", "Free", "", "free ", "__class__", "a\0", "x" * 100_000, "\u202e", "a.b"],
    ids=lambda name: repr(name[:12]),
)
@async_test
async def test_undeclared_override_is_rejected(tmp_path: Path, name: str) -> None:
    async with serving_preset(tmp_path, overrides=FREE_OVERRIDE) as server:
        answer = await server.post(DEPLOY, {"dry_run": False, "overrides": {"free": "a", name: "b"}})
        await assert_rejected(server, answer, "this preset does not declare it", "allowed are: free (a string)")
        assert len(answer.content) < 1000


@async_test
async def test_override_name_with_lone_surrogate_is_rejected(tmp_path: Path) -> None:
    async with serving_preset(tmp_path, overrides=FREE_OVERRIDE) as server:
        await assert_rejected(server, await post_bytes(server, b'{"overrides": {"\\ud800": "a"}, "dry_run": false}'))


@pytest.mark.parametrize("variable", ["STACK_NAME", "CLUSTER_TAG", "AWS_REGION", "AWS_DEFAULT_REGION"])
@pytest.mark.parametrize("value", ["../../../tmp", "a/b", "..", "a b", "é", "$(id)", "a.json", "a:b"])
@async_test
async def test_override_that_becomes_path_may_not_contain_path(tmp_path: Path, variable: str, value: str) -> None:
    """The stack's name and its region name a file; a preset without rules for them, and without InfraForge, too."""
    async with serving_preset(tmp_path, overrides={"it": {"env": variable}}) as server:
        answer = await server.post(DEPLOY, {"dry_run": False, "overrides": {"it": value}})
        await assert_rejected(server, answer, "overrides.it: ")
    assert sorted(os.listdir(tmp_path)) == ["data", "presets"]


# --- presets ---------------------------------------------------------------------------------------


@async_test
async def test_catastrophic_pattern_does_not_block_server(tmp_path: Path) -> None:
    patterns = ["^(a+)+$", "(a|a)*b", "(.*a){20}", "(a?){100}a{100}b"]
    overrides = {f"o{n}": {"env": f"O{n}", "pattern": pattern} for n, pattern in enumerate(patterns)}
    async with serving_preset(tmp_path, overrides=overrides) as server:
        started_at = time.monotonic()
        for name in overrides:
            answer = await server.post(DEPLOY, {"overrides": {name: "a" * 199 + "!"}})
            assert answer.status in (202, 400)
        assert time.monotonic() - started_at < MAX_SECONDS


@pytest.mark.parametrize("name", ["../../../tmp/x", "a/b", "..", "a\nb", "a b", "-", "s" * 200])
@pytest.mark.parametrize("more", [{}, {"forges": {}, "enabledForges": []}], ids=["plain", "infraforge"])
@async_test
async def test_preset_with_stack_name_outside_folder_is_rejected(
    tmp_path: Path, name: str, more: dict[str, Any]
) -> None:
    async with serving_preset(tmp_path, config={"global": {"stackName": name}, **more}) as server:
        assert (await server.get("/api/hyperpod/presets")).json["presets"] == []
        answer = await server.post(DEPLOY, {"dry_run": False})
        assert (answer.status, answer.json["code"]) == (400, "unknown_preset")


def link_to_passwd(script: Path) -> None:
    script.symlink_to("/etc/passwd")


def link_to_itself(script: Path) -> None:
    script.symlink_to(script.name)


def pipe(script: Path) -> None:
    os.mkfifo(script)


def link_to_a_pipe(script: Path) -> None:
    os.mkfifo(script.with_name("pipe"))
    script.symlink_to("pipe")


def link_to_a_device(script: Path) -> None:
    script.symlink_to("/dev/zero")


def folder(script: Path) -> None:
    script.mkdir()


def large(script: Path) -> None:
    script.write_bytes(b"#" * 10_000_000)


def empty(script: Path) -> None:
    script.touch()


def nothing(script: Path) -> None: ...


@pytest.mark.parametrize(
    "make",
    [link_to_passwd, link_to_itself, pipe, link_to_a_pipe, link_to_a_device, folder, large, empty, nothing],
)
@async_test
async def test_script_outside_presets_folder_is_never_read(tmp_path: Path, make: Any) -> None:
    write_hyperpod_preset(tmp_path / "presets", destroy="true")
    script = tmp_path / "presets" / "hyperpod" / "small-deploy.sh"
    script.unlink()
    make(script)
    await assert_script_rejected(tmp_path)


@async_test
async def test_script_with_too_long_name_is_rejected(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets", scripts={"deploy": f"hyperpod/{'x' * 300}.sh"})
    await assert_script_rejected(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@async_test
async def test_unreadable_script_is_rejected(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets")
    (tmp_path / "presets" / "hyperpod" / "small-deploy.sh").chmod(0)
    await assert_script_rejected(tmp_path)


async def assert_script_rejected(tmp_path: Path) -> None:
    """A live deploy and a dry run are rejected at once; the server goes on, and keeps nothing of them."""
    async with running_server(tmp_path, models=MODELS) as server, asyncio.timeout(MAX_SECONDS):
        for dry_run in (False, True):
            status, answer = await post_json(server, DEPLOY, {"dry_run": dry_run})
            assert (status, answer["code"]) == (503, "unavailable")
            assert answer["error"].startswith("The preset's script hyperpod/")
            assert str(tmp_path) not in answer["error"]
        assert (await server.get("/api/hyperpod/jobs")).json["jobs"] == []
        assert (await server.get("/api/models")).status == 200
    assert list((tmp_path / "data" / "jobs").iterdir()) == []


@async_test
async def test_script_link_inside_folder_is_accepted(tmp_path: Path) -> None:
    write_hyperpod_preset(tmp_path / "presets")
    script = tmp_path / "presets" / "hyperpod" / "small-deploy.sh"
    script.rename(script.with_name("shared.sh"))
    script.symlink_to("shared.sh")
    async with running_server(tmp_path, models=MODELS) as server:
        assert (await wait_for_job(server, (await submit(server))["job_id"]))["status"] == "succeeded"


@pytest.mark.parametrize("kind", ["list", "mapping"])
@async_test
async def test_configuration_of_maximal_depth_is_accepted_and_deeper_rejected(tmp_path: Path, kind: str) -> None:
    """And one that is deeper is refused when it is saved, not when somebody deploys it."""
    deep: Any = "x"
    for _ in range(48):
        deep = [deep] if kind == "list" else {"a": deep}
    write_hyperpod_preset(tmp_path / "presets", deploy="cat config.json", config={"deep": deep})
    for depth in (60, 200, 330, 2000):
        opened, closed = ("[", "]") if kind == "list" else ("{a: ", "}")
        content = f"config: {{deep: {opened * depth}x{closed * depth}}}\n"
        (tmp_path / "presets" / "hyperpod" / f"deeper-{depth}.yaml").write_text(content)
    async with running_server(tmp_path, models=MODELS) as server:
        assert (await server.get("/api/hyperpod/presets")).json["presets"] == ["small"]
        for dry_run in (False, True):
            job = await wait_for_job(server, (await submit(server, dry_run=dry_run))["job_id"])
            assert job["status"] == "succeeded"
            if dry_run:
                assert job["result"]["plan"]["config"] == {"deep": deep}
            else:
                assert json.loads(await get_log(server, job["job_id"])) == {"deep": deep}


# --- what a script says ----------------------------------------------------------------------------


@async_test
async def test_log_with_escapes_and_html_is_served_unchanged_and_not_as_page(tmp_path: Path) -> None:
    output = (
        b"\x1b[31mred\x1b[0m\x1b]0;title\x07\x1b[2J<script>alert(1)</script>\r50%\r100%\n\xff\xfe\x00 \xe2\x82\nend"
    )
    written = "".join(f"\\{byte:03o}" for byte in output)
    async with serving_preset(tmp_path, deploy=f"printf '{written}'") as server:
        job_id = (await submit(server))["job_id"]
        await wait_for_job(server, job_id)
        url = f"/api/hyperpod/jobs/{job_id}/logs"
        plain = await server.get(url, Accept="text/plain")
        assert plain.content == output
        assert plain.headers["Content-Type"].startswith("text/plain")
        assert plain.headers["X-Content-Type-Options"] == "nosniff"
        for accept in ("text/html,*/*;q=0.1", "application/json"):
            answer = await server.get(url, Accept=accept)
            assert answer.headers["Content-Type"].partition(";")[0] in ("application/json", "text/plain")
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert (await server.get(url)).json["logs"]["logs"] == output.decode(errors="replace")


def deep_bodies() -> dict[str, bytes]:
    return {
        "lists": b'{"overrides": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        "maps": b'{"overrides": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
        "whole": b"[" * 500_000,
    }


@pytest.mark.parametrize("name", deep_bodies())
@async_test
async def test_deeply_nested_body_is_rejected(tmp_path: Path, name: str) -> None:
    async with serving_preset(tmp_path) as server, asyncio.timeout(MAX_SECONDS):
        await assert_rejected(server, await post_bytes(server, deep_bodies()[name]))
        packed = b"\x81\xa9overrides" + b"\x91" * 50_000 + b"\x01"
        await assert_rejected(server, await post_bytes(server, packed, "application/msgpack"))
