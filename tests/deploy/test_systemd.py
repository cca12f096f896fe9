"""The systemd unit as shipped: read by systemd's own tools, and run by a real systemd, with jobs that outlive it."""

# ruff: noqa: S607 - these tools are those of the PATH

from __future__ import annotations

import asyncio
import configparser
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp
import pytest

from infraforge_runner.processes import PROC, descendants
from run import LAST_WORDS
from server.options import parse
from tests.aio import unhurried
from tests.deploy.machine import SYSTEMD, Machine, machine
from tests.deploy.namespaces import known_inside_as
from tests.infraforge_runner.living import RUNAWAYS, RUNNING_AWAY, UNTIL_TOLD, lives, supervisors
from tests.jobs import ended, job_of, log_of, said, submit, write_hyperpod
from tests.pipeline.drawn import plain
from tests.serving import says, write_presets

UNIT = SYSTEMD / "forgeline.service"
DATA = Path("/var/lib/forgeline")  # as the processes in the machine know it
EXPOSURE = 2.0  # of 10, by systemd-analyze security


def test_a_stop_waits_longer_than_the_server_drains() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign] # as its documentation says
    unit.read(UNIT)
    assert float(unit["Service"]["TimeoutStopSec"]) >= parse([], {}).drain + LAST_WORDS + 10


def test_every_variable_in_the_file_of_the_environment_is_one_that_counts() -> None:
    text = (SYSTEMD / "forgeline.env").read_text()
    named = dict(re.findall(r"^#(FORGELINE_\w+)=(.*)$", text, re.MULTILINE))
    assert len(named) > 4
    options = parse(["--allow-open"], {name: value for name, value in named.items() if value})
    assert (options.drain, options.address, options.infraforge) == (30, "0.0.0.0", Path("/opt/InfraForge"))


@pytest.mark.slow
def test_systemd_finds_no_fault_in_the_unit_and_calls_it_well_protected() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    verified = subprocess.run(["systemd-analyze", "verify", UNIT], capture_output=True, text=True, check=False)
    assert (verified.returncode, verified.stderr) == (0, "")
    told = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)]
    judged = subprocess.run(told, capture_output=True, text=True, check=False).stdout
    found = re.search(r"Overall exposure level for forgeline.service: ([\d.]+)", judged)
    assert found is not None, judged
    assert float(found[1]) <= EXPOSURE


@dataclass
class Served:
    """The service in a machine, as tests of jobs want a server."""

    box: Machine
    url: str
    http: aiohttp.ClientSession

    async def is_ready(self) -> None:
        while True:
            try:
                async with self.http.get(self.url + "/readyz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.05)

    async def control(self, verb: str) -> None:
        await asyncio.to_thread(self.box.systemctl, verb, "forgeline")

    def supervisors(self) -> list[int]:
        """Of its jobs, and of no other machine's on this one."""
        inside = [] if self.box.first is None else descendants(self.box.first)
        return [pid for pid in supervisors(DATA) if pid in inside]

    def work(self, job_id: str) -> Path:
        return self.box.data / "jobs" / job_id / "work"

    def pid_in(self, job_id: str, name: str) -> int:
        """The pid, out here, of the process that has written its pid in there into this file."""
        assert self.box.first is not None
        return known_inside_as(int((self.work(job_id) / name).read_text()), self.box.first)


@asynccontextmanager
async def served(folder: Path, deploy: str, *flags: str) -> AsyncIterator[Served]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with machine(folder) as box:
        await asyncio.to_thread(box.boot)
        box.install(FORGELINE_PORT=port, FORGELINE_JOBS_AT_ONCE=1)
        write_presets(box.presets, {"m": says("echo", limits={"frame_pixels": 10_000})})
        for name in ("small", "other"):
            write_hyperpod(box.presets, name, deploy=deploy)
        async with aiohttp.ClientSession() as http:
            service = Served(box, f"http://127.0.0.1:{port}", http)
            await asyncio.to_thread(box.type, "start")
            await service.is_ready()
            yield service


@pytest.mark.slow
@unhurried
async def test_a_job_outlives_a_restart_of_the_unit_and_an_upgrade_with_its_files_in_tmp(tmp_path: Path) -> None:
    deploy = f"touch /tmp/of-the-job; {UNTIL_TOLD}; ls /tmp; id --user --name; cat ~/.profile"
    async with served(tmp_path, deploy) as service:
        (service.box.data / ".profile").write_text("its home\n")
        job_id = (await submit(service))["job_id"]
        await said(service, job_id, "ready")
        (supervisor,) = service.supervisors()
        first = service.box.property("MainPID")
        await asyncio.to_thread(partial(service.box.type, "upgrade", NEW="2"))
        await service.is_ready()
        second = service.box.property("MainPID")
        assert second != first
        assert service.box.run("readlink", f"/proc/{second}/cwd") == "/opt/forgeline/2"
        assert (PROC / str(supervisor) / "cmdline").read_bytes().startswith(b"/opt/forgeline/1/.venv/bin/python\0")
        assert b"PYTHONPATH=/opt/forgeline/1\0" in (PROC / str(supervisor) / "environ").read_bytes()
        assert service.supervisors() == [supervisor]
        assert (await job_of(service, job_id))["status"] == "running"
        (service.work(job_id) / "go").touch()
        assert (await ended(service, job_id))["status"] == "succeeded"
        assert await log_of(service, job_id) == b"ready\nof-the-job\nforgeline\nits home\n"


@pytest.mark.slow
@unhurried
async def test_the_unit_s_protection_leaves_workers_and_the_cdk_s_node_what_they_need(tmp_path: Path) -> None:
    deploy = "command -v node || exit 7; node --print '[1, 2].map(x => 2 * x).join()'; git --version; touch /etc/mine"
    async with served(tmp_path, deploy) as service:
        asked = {"text": "hi", "frames": [plain(200, 200).as_base64()]}
        async with service.http.post(service.url + "/api/models/m", json=asked) as response:
            assert response.status == 200, await response.text()
        job = await ended(service, (await submit(service))["job_id"])
        if job["result"]["returncode"] == 7:
            pytest.skip("node is not installed for all users")
        log = (await log_of(service, job["job_id"])).decode().splitlines()
        assert log[1] == "2,4"
        assert log[-1] == "touch: cannot touch '/etc/mine': Read-only file system"


@pytest.mark.slow
@unhurried
async def test_a_server_that_is_killed_is_started_again_and_one_that_is_stopped_leaves_its_job(tmp_path: Path) -> None:
    async with served(tmp_path, UNTIL_TOLD) as service:
        job_id = (await submit(service))["job_id"]
        await said(service, job_id, "ready")
        service.box.run("kill", "-KILL", service.box.property("MainPID"))
        await service.is_ready()
        assert service.box.property("NRestarts") == "1"
        await service.control("stop")
        assert service.box.property("Result") == "success"
        (service.work(job_id) / "go").touch()
        while service.supervisors():  # noqa: ASYNC110 - no server is there to tell
            await asyncio.sleep(0.05)
        await service.control("start")
        await service.is_ready()
        assert (await job_of(service, job_id))["status"] == "succeeded"


@pytest.mark.slow
@unhurried
async def test_what_a_dead_supervisor_has_left_is_ended_though_the_server_is_another_one(tmp_path: Path) -> None:
    async with served(tmp_path, RUNNING_AWAY) as service:
        job_id = (await submit(service))["job_id"]
        await said(service, job_id, "ready")
        pids = [service.pid_in(job_id, name) for name in (*RUNAWAYS, "script")]
        await service.control("restart")
        await service.is_ready()
        assert all(map(lives, pids))
        (supervisor,) = service.supervisors()
        os.kill(supervisor, signal.SIGKILL)
        assert (await ended(service, job_id))["status"] == "interrupted"
        assert not any(map(lives, pids))


@pytest.mark.slow
@unhurried
async def test_after_a_power_cut_what_ran_is_interrupted_and_what_waited_begins(tmp_path: Path) -> None:
    async with served(tmp_path, UNTIL_TOLD) as service:
        ran = (await submit(service))["job_id"]
        await said(service, ran, "ready")
        waited = (await submit(service, preset="other"))["job_id"]
        (supervisor,) = service.supervisors()
        await asyncio.to_thread(service.box.power_cut)
        assert not lives(supervisor)
        await asyncio.to_thread(service.box.boot)
        await service.control("start")
        await service.is_ready()
        assert (await ended(service, ran))["status"] == "interrupted"
        assert await log_of(service, ran) == b"ready\n"
        await said(service, waited, "ready")
        (service.work(waited) / "go").touch()
        assert (await ended(service, waited))["status"] == "succeeded"


@pytest.mark.slow
@unhurried
async def test_a_mistake_in_the_options_is_told_once_and_not_tried_again(tmp_path: Path) -> None:
    async with served(tmp_path, UNTIL_TOLD) as service:
        service.box.write("etc/forgeline/forgeline.env", "FORGELINE_ADDRESS=0.0.0.0\n")
        await service.control("stop")
        await service.control("start")
        while service.box.property("ActiveState") != "failed":  # noqa: ASYNC110 - systemctl waits for the exec alone
            await asyncio.sleep(0.05)
        assert (service.box.property("ExecMainStatus"), service.box.property("NRestarts")) == ("2", "0")
        told = service.box.run("journalctl", "--unit=forgeline", "--output=cat", "--no-pager")
        assert "set FORGELINE_API_KEYS" in told
