"""The shipped systemd unit: checked by systemd's tools and run by a real systemd, with jobs that survive it."""

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

from infraforge_runner.jobs.process_tree import PROC, descendants
from server.config import parse_options
from server.lifecycle import FLUSH_SECONDS
from tests.async_tests import slow_async_test
from tests.deploy.machine import SYSTEMD, Machine, create_machine
from tests.deploy.namespaces import find_by_namespace_pid
from tests.infraforge_runner.process_helpers import (
    RUNAWAY_NAMES,
    RUNAWAY_SCRIPT,
    WAIT_FOR_GO_FILE,
    find_supervisors,
    is_running,
)
from tests.jobs import get_job, get_log, submit, wait_for_job, wait_for_log_text, write_hyperpod_preset
from tests.pipeline.media.make_pictures import plain_picture
from tests.running_server import scripted_model, write_presets

UNIT = SYSTEMD / "forgeline.service"
DATA = Path("/var/lib/forgeline")  # the path inside the machine
MAX_EXPOSURE = 2.0  # of 10, by systemd-analyze security


def test_systemd_stop_timeout_exceeds_drain() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign] # as its documentation says
    unit.read(UNIT)
    assert float(unit["Service"]["TimeoutStopSec"]) >= parse_options([], {}).drain + FLUSH_SECONDS + 10


def test_systemd_environment_file_has_only_known_variables() -> None:
    text = (SYSTEMD / "forgeline.env").read_text()
    variables = dict(re.findall(r"^#(FORGELINE_\w+)=(.*)$", text, re.MULTILINE))
    assert len(variables) > 4
    options = parse_options(["--allow-open"], {name: value for name, value in variables.items() if value})
    assert (options.drain, options.address, options.infraforge) == (30, "0.0.0.0", Path("/opt/InfraForge"))


@pytest.mark.slow
def test_systemd_analyze_accepts_unit_and_its_security() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    result = subprocess.run(["systemd-analyze", "verify", UNIT], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)]
    report = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    match = re.search(r"Overall exposure level for forgeline.service: ([\d.]+)", report)
    assert match is not None, report
    assert float(match[1]) <= MAX_EXPOSURE


@dataclass
class SystemdService:
    """The service in a machine, for the helpers in tests/jobs.py."""

    machine: Machine
    url: str
    http: aiohttp.ClientSession

    async def wait_until_ready(self) -> None:
        while True:
            try:
                async with self.http.get(self.url + "/readyz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.05)

    async def control(self, verb: str) -> None:
        await asyncio.to_thread(self.machine.systemctl, verb, "forgeline")

    def supervisors(self) -> list[int]:
        """The pids of the supervisors in this machine."""
        inside = [] if self.machine.init_pid is None else descendants(self.machine.init_pid)
        return [pid for pid in find_supervisors(DATA) if pid in inside]

    def work_folder(self, job_id: str) -> Path:
        return self.machine.data / "jobs" / job_id / "work"

    def pid_in(self, job_id: str, name: str) -> int:
        """The pid here of the process that wrote its pid inside the machine into this file."""
        assert self.machine.init_pid is not None
        return find_by_namespace_pid(int((self.work_folder(job_id) / name).read_text()), self.machine.init_pid)


@asynccontextmanager
async def start_service(folder: Path, deploy: str, *flags: str) -> AsyncIterator[SystemdService]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with create_machine(folder) as machine:
        await asyncio.to_thread(machine.boot)
        machine.install(FORGELINE_PORT=port, FORGELINE_JOBS_AT_ONCE=1)
        write_presets(machine.presets, {"m": scripted_model("echo", limits={"frame_pixels": 10_000})})
        for name in ("small", "other"):
            write_hyperpod_preset(machine.presets, name, deploy=deploy)
        async with aiohttp.ClientSession() as http:
            service = SystemdService(machine, f"http://127.0.0.1:{port}", http)
            await asyncio.to_thread(machine.run_documented, "start")
            await service.wait_until_ready()
            yield service


@pytest.mark.slow
@slow_async_test
async def test_systemd_job_survives_restart_and_upgrade_with_its_tmp_files(tmp_path: Path) -> None:
    deploy = f"touch /tmp/of-the-job; {WAIT_FOR_GO_FILE}; ls /tmp; id --user --name; cat ~/.profile"
    async with start_service(tmp_path, deploy) as service:
        (service.machine.data / ".profile").write_text("its home\n")
        job_id = (await submit(service))["job_id"]
        await wait_for_log_text(service, job_id, "ready")
        (supervisor,) = service.supervisors()
        first = service.machine.property("MainPID")
        await asyncio.to_thread(partial(service.machine.run_documented, "upgrade", NEW="2"))
        await service.wait_until_ready()
        second = service.machine.property("MainPID")
        assert second != first
        assert service.machine.run("readlink", f"/proc/{second}/cwd") == "/opt/forgeline/2"
        assert (PROC / str(supervisor) / "cmdline").read_bytes().startswith(b"/opt/forgeline/1/.venv/bin/python\0")
        assert b"PYTHONPATH=/opt/forgeline/1\0" in (PROC / str(supervisor) / "environ").read_bytes()
        assert service.supervisors() == [supervisor]
        assert (await get_job(service, job_id))["status"] == "running"
        (service.work_folder(job_id) / "go").touch()
        assert (await wait_for_job(service, job_id))["status"] == "succeeded"
        assert await get_log(service, job_id) == b"ready\nof-the-job\nforgeline\nits home\n"


@pytest.mark.slow
@slow_async_test
async def test_systemd_sandbox_allows_workers_and_node(tmp_path: Path) -> None:
    deploy = "command -v node || exit 7; node --print '[1, 2].map(x => 2 * x).join()'; git --version; touch /etc/mine"
    async with start_service(tmp_path, deploy) as service:
        body = {"text": "hi", "frames": [plain_picture(200, 200).as_base64()]}
        async with service.http.post(service.url + "/api/models/m", json=body) as response:
            assert response.status == 200, await response.text()
        job = await wait_for_job(service, (await submit(service))["job_id"])
        if job["result"]["returncode"] == 7:
            pytest.skip("node is not installed for all users")
        log = (await get_log(service, job["job_id"])).decode().splitlines()
        assert log[1] == "2,4"
        assert log[-1] == "touch: cannot touch '/etc/mine': Read-only file system"


@pytest.mark.slow
@slow_async_test
async def test_systemd_restarts_killed_server_and_stop_leaves_job_running(tmp_path: Path) -> None:
    async with start_service(tmp_path, WAIT_FOR_GO_FILE) as service:
        job_id = (await submit(service))["job_id"]
        await wait_for_log_text(service, job_id, "ready")
        service.machine.run("kill", "-KILL", service.machine.property("MainPID"))
        await service.wait_until_ready()
        assert service.machine.property("NRestarts") == "1"
        await service.control("stop")
        assert service.machine.property("Result") == "success"
        (service.work_folder(job_id) / "go").touch()
        while service.supervisors():  # noqa: ASYNC110 - no server is running to notify
            await asyncio.sleep(0.05)
        await service.control("start")
        await service.wait_until_ready()
        assert (await get_job(service, job_id))["status"] == "succeeded"


@pytest.mark.slow
@slow_async_test
async def test_systemd_dead_supervisor_leftovers_are_ended_after_restart(tmp_path: Path) -> None:
    async with start_service(tmp_path, RUNAWAY_SCRIPT) as service:
        job_id = (await submit(service))["job_id"]
        await wait_for_log_text(service, job_id, "ready")
        pids = [service.pid_in(job_id, name) for name in (*RUNAWAY_NAMES, "script")]
        await service.control("restart")
        await service.wait_until_ready()
        assert all(map(is_running, pids))
        (supervisor,) = service.supervisors()
        os.kill(supervisor, signal.SIGKILL)
        assert (await wait_for_job(service, job_id))["status"] == "interrupted"
        assert not any(map(is_running, pids))


@pytest.mark.slow
@slow_async_test
async def test_systemd_power_cut_interrupts_running_job_and_starts_queued_job(tmp_path: Path) -> None:
    async with start_service(tmp_path, WAIT_FOR_GO_FILE) as service:
        running_id = (await submit(service))["job_id"]
        await wait_for_log_text(service, running_id, "ready")
        queued_id = (await submit(service, preset="other"))["job_id"]
        (supervisor,) = service.supervisors()
        await asyncio.to_thread(service.machine.power_cut)
        assert not is_running(supervisor)
        await asyncio.to_thread(service.machine.boot)
        await service.control("start")
        await service.wait_until_ready()
        assert (await wait_for_job(service, running_id))["status"] == "interrupted"
        assert await get_log(service, running_id) == b"ready\n"
        await wait_for_log_text(service, queued_id, "ready")
        (service.work_folder(queued_id) / "go").touch()
        assert (await wait_for_job(service, queued_id))["status"] == "succeeded"


@pytest.mark.slow
@slow_async_test
async def test_systemd_invalid_options_fail_once_without_restart(tmp_path: Path) -> None:
    async with start_service(tmp_path, WAIT_FOR_GO_FILE) as service:
        service.machine.write("etc/forgeline/forgeline.env", "FORGELINE_ADDRESS=0.0.0.0\n")
        await service.control("stop")
        await service.control("start")
        while service.machine.property("ActiveState") != "failed":  # noqa: ASYNC110 - systemctl waits for the exec alone
            await asyncio.sleep(0.05)
        assert (service.machine.property("ExecMainStatus"), service.machine.property("NRestarts")) == ("2", "0")
        log = service.machine.run("journalctl", "--unit=forgeline", "--output=cat", "--no-pager")
        assert "set FORGELINE_API_KEYS" in log
