"""Commands for jobs, presets and stacks, with real scripts on a real server."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.async_tests import slow_async_test
from tests.processes import running_process
from tests.running_server import RunningServer, running_server
from tests.server.client.cuttable_proxy import CuttableProxy
from tests.server.client.run_cli import open_terminal, run_cli, start_cli, wait_for_exit

STACK = "my-stack"


@dataclass(frozen=True)
class ScriptGate:
    """A pipe at which a script waits: each wait reads one line."""

    path: Path

    @property
    def wait(self) -> str:
        """The shell command that waits. It repeats at end of file, which a previous writer may still cause."""
        return f"until read -r _ < {self.path}; do :; done"

    async def open(self) -> None:
        await asyncio.to_thread(self.path.write_text, "go\n")


def write_preset(folder: Path, deploy: str, destroy: str = "true") -> ScriptGate:
    """Write the preset `own` with these shell scripts; `GATE` in a script is replaced by a wait at the gate."""
    gate = ScriptGate(folder / "gate")
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
async def serve_preset(
    folder: Path, deploy: str, destroy: str = "true"
) -> AsyncIterator[tuple[RunningServer, ScriptGate]]:
    gate = write_preset(folder, deploy, destroy)
    async with running_server(folder) as server:
        yield server, gate


@slow_async_test
async def test_deploy_follow_prints_growing_log_and_exits_as_job_ends(tmp_path: Path) -> None:
    script = 'echo "count $COUNT"; GATE; echo done'
    async with serve_preset(tmp_path, script) as (server, gate):
        command = ["deploy", "own", "--live", "--follow", "--set", "gpu_instance_count=2"]
        async with start_cli(server.url, *command) as child:
            assert child.stdout is not None
            assert await child.stdout.readline() == b"count 2\n"
            await gate.open()
            followed = await wait_for_exit(child)
    assert (followed.code, followed.out) == (0, "done\n")
    first, last = followed.err.splitlines()
    assert first.endswith(f": deploy own, stack {STACK} in us-east-1")
    assert "succeeded after" in last


@slow_async_test
async def test_deploy_without_follow_prints_job_id(tmp_path: Path) -> None:
    async with serve_preset(tmp_path, "echo one; echo two; GATE") as (server, gate):
        deployed = await run_cli(server.url, "deploy", "own", "--live")
        job_id = deployed.out.strip()
        jobs = json.loads((await run_cli(server.url, "jobs", "--json")).out)
        await gate.open()
        followed = await run_cli(server.url, "logs", "-f", job_id)
        whole = await run_cli(server.url, "logs", job_id)
        tail = await run_cli(server.url, "logs", "--tail", "1", job_id)
    assert [item["job_id"] for item in jobs["jobs"]] == [job_id]
    assert (deployed.code, followed.code, whole.code, tail.code) == (0, 0, 0, 0)
    assert (followed.out, whole.out, tail.out) == ("one\ntwo\n", "one\ntwo\n", "two\n")


@slow_async_test
async def test_deploy_failed_job_exits_1_and_json_prints_events(tmp_path: Path) -> None:
    async with serve_preset(tmp_path, "echo one; exit 3") as (server, _):
        failed = await run_cli(server.url, "deploy", "own", "--live", "-f", "--json")
        refused = await run_cli(server.url, "deploy", "own", "--live", "--set", "gpu_instance_count=10")
        unknown = await run_cli(server.url, "logs", "-f", "nothing")
    events = [json.loads(line) for line in failed.out.splitlines()]
    assert (failed.code, refused.code, unknown.code) == (1, 1, 1)
    assert "".join(event.get("text", "") for event in events) == "one\n"
    assert (events[-2]["status"], events[-1]["type"]) == ("failed", "complete")
    assert "at most 9" in refused.err


@slow_async_test
async def test_cancel_ends_job_and_its_followers(tmp_path: Path) -> None:
    async with (
        serve_preset(tmp_path, "echo one; GATE") as (server, _),
        start_cli(server.url, "deploy", "own", "--live", "-f") as child,
    ):
        assert child.stdout is not None
        assert await child.stdout.readline() == b"one\n"
        (job,) = json.loads((await run_cli(server.url, "jobs", "--json", "--status", "running")).out)["jobs"]
        assert (await run_cli(server.url, "cancel", job["job_id"])).code == 0
        followed = await wait_for_exit(child)
    assert followed.code == 1
    assert "The job ended as cancelled" in followed.err


@slow_async_test
async def test_logs_follow_reconnects_without_lost_or_repeated_bytes(tmp_path: Path) -> None:
    async with (
        serve_preset(tmp_path, "echo one; GATE; echo two; GATE; echo three") as (server, gate),
        CuttableProxy(server.url) as proxy,
        start_cli(proxy.url, "deploy", "own", "--live", "-f") as child,
    ):
        assert child.stdout is not None
        for line in (b"one\n", b"two\n"):
            assert await child.stdout.readline() == line
            proxy.drop_connections()
            await gate.open()
        followed = await wait_for_exit(child)
    assert (followed.code, followed.out) == (0, "three\n")
    assert "The server is back; going on where it stopped." in followed.err


@slow_async_test
async def test_deploy_follow_survives_server_restart(tmp_path: Path) -> None:
    gate = write_preset(tmp_path, "echo one; GATE; echo two")
    async with (
        running_process(tmp_path, models={}) as first,
        start_cli(first.url, "deploy", "own", "--live", "-f") as child,
    ):
        assert child.stdout is not None
        assert await child.stdout.readline() == b"one\n"
        first.child.kill()
        await first.child.wait()
        async with running_process(tmp_path, "--port", first.url.rpartition(":")[2], models={}):
            await gate.open()
            followed = await wait_for_exit(child)
    assert (followed.code, followed.out) == (0, "two\n")


@slow_async_test
async def test_destroy_requires_stack_name_as_confirmation(tmp_path: Path) -> None:
    async with serve_preset(tmp_path, "true", "echo gone") as (server, _):
        destroy = ["destroy", "own", "--live", "-f"]
        unconfirmed = await run_cli(server.url, *destroy)
        async with open_terminal(server.url, *destroy) as wrong:
            await wrong.wait_for_output(STACK, "The name of the stack")
            wrong.type("other\n")
            assert await wrong.exit_code() == 1
        async with open_terminal(server.url, *destroy) as interrupted:
            await interrupted.wait_for_output("The name of the stack")
            interrupted.interrupt()
            assert await interrupted.exit_code() == 130
        async with open_terminal(server.url, *destroy) as confirmed:
            await confirmed.wait_for_output("The name of the stack")
            confirmed.type(f"{STACK}\n")
            await confirmed.wait_for_output("gone")
            assert await confirmed.exit_code() == 0
    assert (unconfirmed.code, unconfirmed.out) == (2, "")
    assert "--confirm NAME" in unconfirmed.err


@slow_async_test
async def test_deploy_follow_at_terminal_shows_bar_and_ctrl_c_leaves_job_running(tmp_path: Path) -> None:
    async with serve_preset(tmp_path, r"printf '\e[32mgreen\e[0m and \e[2Jno more\n'; GATE; echo two") as (
        server,
        gate,
    ):
        async with open_terminal(server.url, "deploy", "own", "--live", "-f") as screen:
            await screen.wait_for_output("\x1b[32mgreen", "no more", "0:00:0")
            screen.interrupt()
            assert await screen.exit_code() == 130
        assert "\x1b[2J" not in screen.raw
        assert "The job goes on" in " ".join(screen.lines)
        await gate.open()
        job = json.loads((await run_cli(server.url, "jobs", "--json")).out)["jobs"][0]["job_id"]
        assert (await run_cli(server.url, "logs", "-f", job)).out.endswith("two\n")


@slow_async_test
async def test_presets_and_stacks_print_table_or_json(tmp_path: Path) -> None:
    async with serve_preset(tmp_path, "true") as (server, _):
        assert (await run_cli(server.url, "deploy", "own", "--live", "-f")).code == 0
        presets = await run_cli(server.url, "presets")
        stacks = await run_cli(server.url, "stacks")
        as_json = json.loads((await run_cli(server.url, "stacks", "--json")).out)
    assert presets.out.splitlines()[1].split() == ["own", "Own", "scripts", "gpu_instance_count"]
    assert stacks.out.splitlines()[1].split()[:3] == [STACK, "us-east-1", "own"]
    assert as_json["stacks"][0]["preset"] == "own"
