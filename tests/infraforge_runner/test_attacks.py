"""Deploys as an attacker asks for them, by requests and by presets: nothing is run, read, hung or spoilt."""

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

from tests.aio import asynchronous
from tests.jobs import ended, log_of, post, submit, write_hyperpod
from tests.serving import Answer, Server, says, serving

MODELS = {"m": says("echo")}
DEPLOY = "/api/hyperpod/deploy"
SOON = 10.0  # seconds in which a server that is not held answers; on a machine that has other work, too
FREE = {"free": {"env": "FREE"}}  # an override without a pattern


async def send(server: Server, body: bytes, kind: str = "application/json", **headers: str) -> Answer:
    return await server.request("POST", DEPLOY, data=body, headers={"Content-Type": kind, **headers})


@asynccontextmanager
async def preset_with(tmp_path: Path, **keys: Any) -> AsyncIterator[Server]:
    write_hyperpod(tmp_path / "presets", **keys)
    async with serving(tmp_path, models=MODELS) as server:
        yield server


async def check_refused(server: Server, answer: Answer, *words: str) -> None:
    """A sentence with 400, and no job."""
    assert (answer.status, answer.json["code"]) == (400, "invalid_request"), answer.content
    for word in words:
        assert word in answer.json["error"]
    assert "Traceback" not in answer.json["error"]
    assert (await server.get("/api/hyperpod/jobs")).json["jobs"] == []


# --- values ----------------------------------------------------------------------------------------


@asynchronous
async def test_a_value_reaches_the_script_as_it_is_and_is_never_run(tmp_path: Path) -> None:
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
    async with preset_with(tmp_path, deploy=deploy, overrides=overrides) as server:
        asked = dict(zip(overrides, values, strict=True))
        job = await ended(server, (await submit(server, overrides=asked))["job_id"])
        assert (job["status"], job["overrides"]) == ("succeeded", asked)
        got = (tmp_path / "data" / "jobs" / job["job_id"] / "work" / "values").read_bytes()
        assert got.decode().split("\0")[:-1] == values
        job = await ended(server, (await submit(server, dry_run=True, overrides=asked))["job_id"])
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
@asynchronous
async def test_what_is_no_short_line_of_text_is_refused(tmp_path: Path, name: str) -> None:
    async with preset_with(tmp_path, overrides=FREE) as server:
        body = {"dry_run": False, "overrides": {"free": HOSTILE[name]}}
        await check_refused(server, await server.post(DEPLOY, body), "overrides.free: expected a string")
        packed = await send(server, msgpack.packb(body), "application/msgpack")
        await check_refused(server, packed, "overrides.free: expected a string")


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
@asynchronous
async def test_a_body_that_is_hardly_json_is_refused(tmp_path: Path, value: bytes) -> None:
    async with preset_with(tmp_path, overrides=FREE) as server:
        for key in ({}, {"Idempotency-Key": "k"}):
            answer = await send(server, b'{"dry_run": false, "overrides": {"free": ' + value + b"}}", **key)
            await check_refused(server, answer)


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
@asynchronous
async def test_a_message_that_json_could_not_say_is_refused(tmp_path: Path, overrides: dict[Any, Any]) -> None:
    async with preset_with(tmp_path, overrides=FREE) as server:
        for key in ({}, {"Idempotency-Key": "k"}):
            body = msgpack.packb({"dry_run": False, "overrides": overrides})
            await check_refused(server, await send(server, body, "application/msgpack", **key))


@pytest.mark.parametrize(
    "name",
    ["LD_PRELOAD", "PATH", "BASH_ENV", "FREE", "Free", "", "free ", "__class__", "a\0", "x" * 100_000, "\u202e", "a.b"],
    ids=lambda name: repr(name[:12]),
)
@asynchronous
async def test_what_the_preset_does_not_declare_is_refused(tmp_path: Path, name: str) -> None:
    async with preset_with(tmp_path, overrides=FREE) as server:
        answer = await server.post(DEPLOY, {"dry_run": False, "overrides": {"free": "a", name: "b"}})
        await check_refused(server, answer, "this preset does not declare it", "allowed are: free (a string)")
        assert len(answer.content) < 1000


@asynchronous
async def test_a_name_of_half_a_character_is_refused(tmp_path: Path) -> None:
    async with preset_with(tmp_path, overrides=FREE) as server:
        await check_refused(server, await send(server, b'{"overrides": {"\\ud800": "a"}, "dry_run": false}'))


@pytest.mark.parametrize("variable", ["STACK_NAME", "CLUSTER_TAG", "AWS_REGION", "AWS_DEFAULT_REGION"])
@pytest.mark.parametrize("value", ["../../../tmp", "a/b", "..", "a b", "é", "$(id)", "a.json", "a:b"])
@asynchronous
async def test_what_becomes_a_path_holds_no_path(tmp_path: Path, variable: str, value: str) -> None:
    """The stack's name and its region name a file; a preset without rules for them, and without InfraForge, too."""
    async with preset_with(tmp_path, overrides={"it": {"env": variable}}) as server:
        answer = await server.post(DEPLOY, {"dry_run": False, "overrides": {"it": value}})
        await check_refused(server, answer, "overrides.it: ")
    assert sorted(os.listdir(tmp_path)) == ["data", "presets"]


# --- presets ---------------------------------------------------------------------------------------


@asynchronous
async def test_a_catastrophic_pattern_holds_nobody(tmp_path: Path) -> None:
    patterns = ["^(a+)+$", "(a|a)*b", "(.*a){20}", "(a?){100}a{100}b"]
    overrides = {f"o{n}": {"env": f"O{n}", "pattern": pattern} for n, pattern in enumerate(patterns)}
    async with preset_with(tmp_path, overrides=overrides) as server:
        began = time.monotonic()
        for name in overrides:
            answer = await server.post(DEPLOY, {"overrides": {name: "a" * 199 + "!"}})
            assert answer.status in (202, 400)
        assert time.monotonic() - began < SOON


@pytest.mark.parametrize("name", ["../../../tmp/x", "a/b", "..", "a\nb", "a b", "-", "s" * 200])
@pytest.mark.parametrize("more", [{}, {"forges": {}, "enabledForges": []}], ids=["plain", "infraforge"])
@asynchronous
async def test_a_preset_whose_stack_would_leave_its_folder_is_not_taken(
    tmp_path: Path, name: str, more: dict[str, Any]
) -> None:
    async with preset_with(tmp_path, config={"global": {"stackName": name}, **more}) as server:
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
@asynchronous
async def test_a_script_that_is_no_script_of_the_folder_is_not_read(tmp_path: Path, make: Any) -> None:
    write_hyperpod(tmp_path / "presets", destroy="true")
    script = tmp_path / "presets" / "hyperpod" / "small-deploy.sh"
    script.unlink()
    make(script)
    await check_unusable(tmp_path)


@asynchronous
async def test_a_script_with_too_long_a_name_is_not_read(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets", scripts={"deploy": f"hyperpod/{'x' * 300}.sh"})
    await check_unusable(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@asynchronous
async def test_a_script_that_may_not_be_read_is_not_run(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets")
    (tmp_path / "presets" / "hyperpod" / "small-deploy.sh").chmod(0)
    await check_unusable(tmp_path)


async def check_unusable(tmp_path: Path) -> None:
    """A live deploy and a dry one are refused at once; the server goes on, and keeps nothing of them."""
    async with serving(tmp_path, models=MODELS) as server, asyncio.timeout(SOON):
        for dry_run in (False, True):
            status, answer = await post(server, DEPLOY, {"dry_run": dry_run})
            assert (status, answer["code"]) == (503, "unavailable")
            assert answer["error"].startswith("The preset's script hyperpod/")
            assert str(tmp_path) not in answer["error"]
        assert (await server.get("/api/hyperpod/jobs")).json["jobs"] == []
        assert (await server.get("/api/models")).status == 200
    assert list((tmp_path / "data" / "jobs").iterdir()) == []


@asynchronous
async def test_a_link_that_stays_in_the_folder_is_a_script(tmp_path: Path) -> None:
    write_hyperpod(tmp_path / "presets")
    script = tmp_path / "presets" / "hyperpod" / "small-deploy.sh"
    script.rename(script.with_name("shared.sh"))
    script.symlink_to("shared.sh")
    async with serving(tmp_path, models=MODELS) as server:
        assert (await ended(server, (await submit(server))["job_id"]))["status"] == "succeeded"


@pytest.mark.parametrize("kind", ["list", "mapping"])
@asynchronous
async def test_a_configuration_as_deep_as_is_taken_runs_to_the_end(tmp_path: Path, kind: str) -> None:
    """And one that is deeper is refused when it is saved, not when somebody deploys it."""
    deep: Any = "x"
    for _ in range(48):
        deep = [deep] if kind == "list" else {"a": deep}
    write_hyperpod(tmp_path / "presets", deploy="cat config.json", config={"deep": deep})
    for depth in (60, 200, 330, 2000):
        opened, closed = ("[", "]") if kind == "list" else ("{a: ", "}")
        content = f"config: {{deep: {opened * depth}x{closed * depth}}}\n"
        (tmp_path / "presets" / "hyperpod" / f"deeper-{depth}.yaml").write_text(content)
    async with serving(tmp_path, models=MODELS) as server:
        assert (await server.get("/api/hyperpod/presets")).json["presets"] == ["small"]
        for dry_run in (False, True):
            job = await ended(server, (await submit(server, dry_run=dry_run))["job_id"])
            assert job["status"] == "succeeded"
            if dry_run:
                assert job["result"]["plan"]["config"] == {"deep": deep}
            else:
                assert json.loads(await log_of(server, job["job_id"])) == {"deep": deep}


# --- what a script says ----------------------------------------------------------------------------


@asynchronous
async def test_a_log_of_escapes_and_html_comes_back_as_it_is_and_is_no_page(tmp_path: Path) -> None:
    said = b"\x1b[31mred\x1b[0m\x1b]0;title\x07\x1b[2J<script>alert(1)</script>\r50%\r100%\n\xff\xfe\x00 \xe2\x82\nend"
    written = "".join(f"\\{byte:03o}" for byte in said)
    async with preset_with(tmp_path, deploy=f"printf '{written}'") as server:
        job_id = (await submit(server))["job_id"]
        await ended(server, job_id)
        url = f"/api/hyperpod/jobs/{job_id}/logs"
        plain = await server.get(url, Accept="text/plain")
        assert plain.content == said
        assert plain.headers["Content-Type"].startswith("text/plain")
        assert plain.headers["X-Content-Type-Options"] == "nosniff"
        for accept in ("text/html,*/*;q=0.1", "application/json"):
            answer = await server.get(url, Accept=accept)
            assert answer.headers["Content-Type"].partition(";")[0] in ("application/json", "text/plain")
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert (await server.get(url)).json["logs"]["logs"] == said.decode(errors="replace")


def deep_bodies() -> dict[str, bytes]:
    return {
        "lists": b'{"overrides": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        "maps": b'{"overrides": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
        "whole": b"[" * 500_000,
    }


@pytest.mark.parametrize("name", deep_bodies())
@asynchronous
async def test_a_body_that_nests_deep_is_refused(tmp_path: Path, name: str) -> None:
    async with preset_with(tmp_path) as server, asyncio.timeout(SOON):
        await check_refused(server, await send(server, deep_bodies()[name]))
        packed = b"\x81\xa9overrides" + b"\x91" * 50_000 + b"\x01"
        await check_refused(server, await send(server, packed, "application/msgpack"))
