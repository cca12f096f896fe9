"""The shipped container file: what it copies, and its image, built and run."""

from __future__ import annotations

import asyncio
import configparser
import re
import socket
from pathlib import Path

import aiohttp
import pytest

from tests.async_tests import within_deadline
from tests.deploy.image import FILES, Container, Image, build_image
from tests.infraforge_runner.process_helpers import is_running
from tests.jobs import get_job, get_log, submit, wait_for_job, wait_for_log_text, write_hyperpod_preset
from tests.processes import ROOT
from tests.running_server import scripted_model, write_presets

MAX_IMAGE_BYTES = 600_000_000  # bytes; 100 MB of it are FFmpeg's libraries, 124 MB the base of this test
KEY = "secret-key"


def test_dockerfile_copies_installed_packages_and_no_ignored_file() -> None:
    text = (FILES / "Dockerfile").read_text()
    copied = set(" ".join(re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE)).split())
    not_ignored = re.findall(r"^!(.*)$", (FILES / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert copied == set(not_ignored)
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    packages = {name.rstrip("*") for name in config["options.packages.find"]["include"].split()}
    assert packages | {"presets", "run.py", "setup.cfg", "pyproject.toml"} <= copied
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_container_image_builds_and_runs(tmp_path: Path) -> None:
    with build_image(tmp_path) as image:
        check_image(image)
        presets = image.root / image.config["WorkingDir"].lstrip("/") / "presets"
        write_presets(presets, {"m": scripted_model("echo")})
        write_hyperpod_preset(
            presets, deploy="id --user; (sleep 0.2 &); echo ready; until [ -e go ]; do sleep 0.05; done"
        )
        data = tmp_path / "volume"
        data.mkdir()
        asyncio.run(within_deadline(check_job_lifecycle(image, data), 60))


def check_image(image: Image) -> None:
    size = sum(path.lstat().st_size for path in image.root.rglob("*") if not path.is_symlink())
    assert size < MAX_IMAGE_BYTES
    assert image.config["User"].partition(":")[0] not in ("", "0", "root")
    assert not (image.root / "opt/forgeline/tests").exists()
    assert not (image.root / "usr/bin/gcc").exists()


class ContainerServer:
    """A server in a container, for the helpers in tests/jobs.py."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self.http = http


async def check_job_lifecycle(image: Image, data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
    async with aiohttp.ClientSession(headers={"X-API-Key": KEY}) as http:
        server = ContainerServer(f"http://127.0.0.1:{port}", http)
        with image.start(data, FORGELINE_PORT=port) as container:
            assert await asyncio.to_thread(container.process.wait) == 2  # a public address without keys is rejected
        with image.start(data, FORGELINE_PORT=port, FORGELINE_API_KEYS=KEY) as container:
            assert await asyncio.to_thread(container.read_first_line) == f"listening on http://0.0.0.0:{port}"
            check_health(container)
            await check_reaping(container)
            job_id = (await submit(server))["job_id"]
            await wait_for_log_text(server, job_id, "ready")
            container.kill()
        with image.start(data, FORGELINE_PORT=port, FORGELINE_API_KEYS=KEY) as container:
            await asyncio.to_thread(container.read_first_line)
            assert (await wait_for_job(server, job_id))["status"] == "interrupted"
            assert await get_log(server, job_id) == b"10001\nready\n"
            next_job_id = (await submit(server))["job_id"]
            await wait_for_log_text(server, next_job_id, "ready")
            (data / "jobs" / next_job_id / "work" / "go").touch()
            await wait_for_job(server, next_job_id)
            assert (await get_job(server, next_job_id))["status"] == "succeeded"
            assert await asyncio.to_thread(container.stop) == 0


def check_health(container: Container) -> None:
    """Run the health check as a container engine does."""
    check_type, *command = container.config["Healthcheck"]["Test"]
    assert check_type == "CMD-SHELL"
    assert container.run("sh", "-c", *command).returncode == 0
    assert container.run("sh", "-c", command[0].replace("/healthz", "/nowhere")).returncode != 0


async def check_reaping(container: Container) -> None:
    """An orphaned process is reaped: no zombie remains."""
    assert container.run("cat", "/proc/1/comm").stdout == "tini\n"
    container.run("sh", "-c", "sleep 0.1 & exit")
    while "sleep" in container.run("sh", "-c", "cat /proc/[0-9]*/comm").stdout:  # noqa: ASYNC110 - there is nothing to wait for
        await asyncio.sleep(0.05)
    assert is_running(container.init_pid)
