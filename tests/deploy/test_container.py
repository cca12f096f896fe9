"""The container file as shipped: what it copies, and its image, built and run for real."""

from __future__ import annotations

import asyncio
import configparser
import re
import socket
from pathlib import Path

import aiohttp
import pytest

from tests.aio import soon
from tests.deploy.image import FILES, Container, Image, built
from tests.infraforge_runner.living import lives
from tests.jobs import ended, job_of, log_of, said, submit, write_hyperpod
from tests.processes import ROOT
from tests.serving import says, write_presets

LARGEST = 600_000_000  # bytes; 100 MB of it are FFmpeg's libraries, 124 MB the base of this test
KEY = "secret-key"


def test_it_copies_every_package_that_is_installed_and_nothing_that_is_ignored() -> None:
    text = (FILES / "Dockerfile").read_text()
    copied = set(" ".join(re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE)).split())
    kept = re.findall(r"^!(.*)$", (FILES / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert copied == set(kept)
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    packages = {name.partition(".")[0] for name in config["options"]["packages"].split()}
    assert packages | {"presets", "run.py", "setup.cfg", "pyproject.toml"} <= copied
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_image_is_built_and_runs_as_it_says(tmp_path: Path) -> None:
    with built(tmp_path) as image:
        check_image(image)
        presets = image.root / image.config["WorkingDir"].lstrip("/") / "presets"
        write_presets(presets, {"m": says("echo")})
        write_hyperpod(presets, deploy="id --user; (sleep 0.2 &); echo ready; until [ -e go ]; do sleep 0.05; done")
        data = tmp_path / "volume"
        data.mkdir()
        asyncio.run(soon(lives_and_ends(image, data), 60))


def check_image(image: Image) -> None:
    size = sum(path.lstat().st_size for path in image.root.rglob("*") if not path.is_symlink())
    assert size < LARGEST
    assert image.config["User"].partition(":")[0] not in ("", "0", "root")
    assert not (image.root / "opt/forgeline/tests").exists()
    assert not (image.root / "usr/bin/gcc").exists()


class Inside:
    """The server in a container, as tests of jobs want one."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url
        self.http = http


async def lives_and_ends(image: Image, data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    async with aiohttp.ClientSession(headers={"X-API-Key": KEY}) as http:
        server = Inside(f"http://127.0.0.1:{port}", http)
        with image.started(data, FORGELINE_PORT=port) as refused:
            assert await asyncio.to_thread(refused.child.wait) == 2  # an open address without keys
        with image.started(data, FORGELINE_PORT=port, FORGELINE_API_KEYS=KEY) as container:
            assert await asyncio.to_thread(container.listening) == f"listening on http://0.0.0.0:{port}"
            check_health(container)
            await check_reaping(container)
            job_id = (await submit(server))["job_id"]
            await said(server, job_id, "ready")
            container.kill()
        with image.started(data, FORGELINE_PORT=port, FORGELINE_API_KEYS=KEY) as container:
            await asyncio.to_thread(container.listening)
            assert (await ended(server, job_id))["status"] == "interrupted"
            assert await log_of(server, job_id) == b"10001\nready\n"
            following = (await submit(server))["job_id"]
            await said(server, following, "ready")
            (data / "jobs" / following / "work" / "go").touch()
            await ended(server, following)
            assert (await job_of(server, following))["status"] == "succeeded"
            assert await asyncio.to_thread(container.stop) == 0


def check_health(container: Container) -> None:
    """The engine's own question, asked as the engine asks it."""
    kind, *command = container.config["Healthcheck"]["Test"]
    assert kind == "CMD-SHELL"
    assert container.run("sh", "-c", *command).returncode == 0
    assert container.run("sh", "-c", command[0].replace("/healthz", "/nowhere")).returncode != 0


async def check_reaping(container: Container) -> None:
    """An orphan in it is reaped when it ends: no zombie stays."""
    assert container.run("cat", "/proc/1/comm").stdout == "tini\n"
    container.run("sh", "-c", "sleep 0.1 & exit")
    while "sleep" in container.run("sh", "-c", "cat /proc/[0-9]*/comm").stdout:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.05)
    assert lives(container.first)
