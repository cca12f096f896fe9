"""Deploy jobs from the command line: real scripts on a real server."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.aio import unhurried
from tests.processes import running
from tests.server.client.cable import Cable
from tests.server.client.commands import ended, started, terminal, typed
from tests.serving import Server, serving

STACK = "my-stack"


@dataclass(frozen=True)
class Gate:
    """Where a script waits, each time for a line of its own."""

    path: Path

    @property
    def wait(self) -> str:
        """In the script. Who last opened the gate may still hold it: then its end is read, which is no line."""
        return f"until read -r _ < {self.path}; do :; done"

    async def open(self) -> None:
        await asyncio.to_thread(self.path.write_text, "go\n")


def write_preset(folder: Path, deploy: str, destroy: str = "true") -> Gate:
    """The preset `own`, whose scripts are these lines of shell; `GATE` in them is where they wait."""
    gate = Gate(folder / "gate")
    os.mkfifo(gate.path)
    scripts = folder / "presets" / "hyperpod" / "scripts"
    scripts.mkdir(parents=True)
    for name, lines in (("deploy", deploy), ("destroy", destroy)):
        (scripts / name).write_text("#!/bin/bash\n" + lines.replace("GATE", gate.wait) + "\n")
        (scripts / name).chmod(0o755)
    preset = {
        "description": "Own scripts",
        "config": {"global": {"stackName": STACK}},
        "scripts": {"deploy": "hyperpod/scripts/deploy", "destroy": "hyperpod/scripts/destroy"},
        "overrides": {"gpu_instance_count": {"env": "COUNT", "type": "integer", "maximum": 9}},
    }
    (scripts.parent / "own.yaml").write_text(yaml.safe_dump(preset))
    return gate


@asynccontextmanager
async def deploying(folder: Path, deploy: str, destroy: str = "true") -> AsyncIterator[tuple[Server, Gate]]:
    gate = write_preset(folder, deploy, destroy)
    async with serving(folder) as server:
        yield server, gate


@unhurried
async def test_a_deploy_that_is_followed_prints_its_log_as_it_grows_and_ends_as_the_job_does(tmp_path: Path) -> None:
    script = 'echo "count $COUNT"; GATE; echo done'
    async with deploying(tmp_path, script) as (server, gate):
        command = ["deploy", "own", "--live", "--follow", "--set", "gpu_instance_count=2"]
        async with started(server.url, *command) as child:
            assert child.stdout is not None
            assert await child.stdout.readline() == b"count 2\n"
            await gate.open()
            followed = await ended(child)
    assert (followed.code, followed.out) == (0, "done\n")
    first, last = followed.err.splitlines()
    assert first.endswith(f": deploy own, stack {STACK} in us-east-1")
    assert "succeeded after" in last


@unhurried
async def test_a_deploy_that_is_not_followed_prints_the_id_that_the_other_commands_take(tmp_path: Path) -> None:
    async with deploying(tmp_path, "echo one; echo two; GATE") as (server, gate):
        begun = await typed(server.url, "deploy", "own", "--live")
        job = begun.out.strip()
        listed = json.loads((await typed(server.url, "jobs", "--json")).out)
        await gate.open()
        followed = await typed(server.url, "logs", "-f", job)
        whole = await typed(server.url, "logs", job)
        tail = await typed(server.url, "logs", "--tail", "1", job)
    assert [one["job_id"] for one in listed["jobs"]] == [job]
    assert (begun.code, followed.code, whole.code, tail.code) == (0, 0, 0, 0)
    assert (followed.out, whole.out, tail.out) == ("one\ntwo\n", "one\ntwo\n", "two\n")


@unhurried
async def test_a_job_that_fails_is_exit_1_and_json_is_its_events(tmp_path: Path) -> None:
    async with deploying(tmp_path, "echo one; exit 3") as (server, _):
        failed = await typed(server.url, "deploy", "own", "--live", "-f", "--json")
        refused = await typed(server.url, "deploy", "own", "--live", "--set", "gpu_instance_count=10")
        unknown = await typed(server.url, "logs", "-f", "nothing")
    events = [json.loads(line) for line in failed.out.splitlines()]
    assert (failed.code, refused.code, unknown.code) == (1, 1, 1)
    assert "".join(event.get("text", "") for event in events) == "one\n"
    assert (events[-2]["status"], events[-1]["type"]) == ("failed", "complete")
    assert "at most 9" in refused.err


@unhurried
async def test_a_job_is_cancelled_and_its_followers_see_the_end(tmp_path: Path) -> None:
    async with (
        deploying(tmp_path, "echo one; GATE") as (server, _),
        started(server.url, "deploy", "own", "--live", "-f") as child,
    ):
        assert child.stdout is not None
        assert await child.stdout.readline() == b"one\n"
        (job,) = json.loads((await typed(server.url, "jobs", "--json", "--status", "running")).out)["jobs"]
        assert (await typed(server.url, "cancel", job["job_id"])).code == 0
        followed = await ended(child)
    assert followed.code == 1
    assert "The job ended as cancelled" in followed.err


@unhurried
async def test_a_log_goes_on_at_its_byte_after_a_lost_connection(tmp_path: Path) -> None:
    async with (
        deploying(tmp_path, "echo one; GATE; echo two; GATE; echo three") as (server, gate),
        Cable(server.url) as cable,
        started(cable.url, "deploy", "own", "--live", "-f") as child,
    ):
        assert child.stdout is not None
        for line in (b"one\n", b"two\n"):
            assert await child.stdout.readline() == line
            cable.cut()
            await gate.open()
        followed = await ended(child)
    assert (followed.code, followed.out) == (0, "three\n")
    assert "The server is back; going on where it stopped." in followed.err


@unhurried
async def test_a_deploy_outlives_its_server_and_so_does_who_follows_it(tmp_path: Path) -> None:
    gate = write_preset(tmp_path, "echo one; GATE; echo two")
    async with running(tmp_path, models={}) as first, started(first.url, "deploy", "own", "--live", "-f") as child:
        assert child.stdout is not None
        assert await child.stdout.readline() == b"one\n"
        first.child.kill()
        await first.child.wait()
        async with running(tmp_path, "--port", first.url.rpartition(":")[2], models={}):
            await gate.open()
            followed = await ended(child)
    assert (followed.code, followed.out) == (0, "two\n")


@unhurried
async def test_a_destroy_wants_the_stacks_name(tmp_path: Path) -> None:
    async with deploying(tmp_path, "true", "echo gone") as (server, _):
        destroy = ["destroy", "own", "--live", "-f"]
        unnamed = await typed(server.url, *destroy)
        async with terminal(server.url, *destroy) as wrong:
            await wrong.shows(STACK, "The name of the stack")
            wrong.type("other\n")
            assert await wrong.exit_code() == 1
        async with terminal(server.url, *destroy) as left:
            await left.shows("The name of the stack")
            left.interrupt()
            assert await left.exit_code() == 130
        async with terminal(server.url, *destroy) as right:
            await right.shows("The name of the stack")
            right.type(f"{STACK}\n")
            await right.shows("gone")
            assert await right.exit_code() == 0
    assert (unnamed.code, unnamed.out) == (2, "")
    assert "--confirm NAME" in unnamed.err


@unhurried
async def test_a_terminal_shows_the_log_above_a_bar_and_ctrl_c_leaves_the_job_running(tmp_path: Path) -> None:
    async with deploying(tmp_path, r"printf '\e[32mgreen\e[0m and \e[2Jno more\n'; GATE; echo two") as (server, gate):
        async with terminal(server.url, "deploy", "own", "--live", "-f") as screen:
            await screen.shows("\x1b[32mgreen", "no more", "0:00:0")
            screen.interrupt()
            assert await screen.exit_code() == 130
        assert "\x1b[2J" not in screen.raw
        assert "The job goes on" in " ".join(screen.lines)
        await gate.open()
        job = json.loads((await typed(server.url, "jobs", "--json")).out)["jobs"][0]["job_id"]
        assert (await typed(server.url, "logs", "-f", job)).out.endswith("two\n")


@unhurried
async def test_presets_and_stacks_are_tables_for_a_person_and_json_for_a_program(tmp_path: Path) -> None:
    async with deploying(tmp_path, "true") as (server, _):
        assert (await typed(server.url, "deploy", "own", "--live", "-f")).code == 0
        presets = await typed(server.url, "presets")
        stacks = await typed(server.url, "stacks")
        as_json = json.loads((await typed(server.url, "stacks", "--json")).out)
    assert presets.out.splitlines()[1].split() == ["own", "Own", "scripts", "gpu_instance_count"]
    assert stacks.out.splitlines()[1].split()[:3] == [STACK, "us-east-1", "own"]
    assert as_json["stacks"][0]["preset"] == "own"
