"""Build the shipped container file with Buildah and run its image without a container engine.

with build_image(tmp_path) as image, image.start(data, FORGELINE_API_KEYS="k") as container:
    container.read_first_line()
    container.stop()
"""

# ruff: noqa: S607 - these tools are those of the PATH

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.namespaces import find_namespace_init
from tests.processes import ROOT

FILES = ROOT / "deploy" / "container"
BASE, SUITE = "docker.io/library/debian:trixie-slim", "trixie"
TOOLS = ("buildah", "mmdebstrap", "unshare", "nsenter", "mount", "umount")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")  # needed to reach package registries from here


@dataclass
class Image:
    """`root` is its writable file system, `config` its configuration as a container engine reads it."""

    root: Path
    config: Mapping[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.config["Env"])

    @contextmanager
    def start(self, data: Path, **environment: str) -> Iterator[Container]:
        """Start a container as an engine does with --read-only: own pids and mounts, the volume, the user."""
        user, group = self.config["User"].split(":")
        os.chown(data, int(user), int(group))
        (volume,) = self.config["Volumes"]
        mounts = f"""
            mount --bind {self.root} {self.root}
            mount --bind {data} {self.root}{volume}
            mount -t tmpfs tmpfs {self.root / "tmp"}
            mount -o remount,bind,ro {self.root}
            exec "$@"
        """
        enter = ["unshare", "--root", str(self.root), "--wd", self.config["WorkingDir"], "--mount-proc"]
        enter += ["--setuid", user, "--setgid", group, "--pid", "--fork", "--kill-child"]
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-ec", mounts, "sh", *enter, *self.config["Entrypoint"]],
            env={**self.environment, "HOME": volume, **environment},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield Container(process, {**self.environment, **environment}, self.config)
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()


@dataclass
class Container:
    process: subprocess.Popen[str]
    environment: Mapping[str, str]
    config: Mapping[str, Any]

    @property
    def init_pid(self) -> int:
        """The pid, outside the container, of its process 1."""
        first = find_namespace_init(self.process.pid)
        assert first is not None
        return first

    def read_first_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the container, as its user."""
        user, group = self.config["User"].split(":")
        enter = [
            "nsenter",
            f"--target={self.init_pid}",
            "--mount",
            "--pid",
            "--root",
            "--setuid",
            user,
            "--setgid",
            group,
        ]
        return subprocess.run([*enter, *command], env=self.environment, capture_output=True, text=True, check=False)

    def stop(self) -> int:
        """Stop the container as `docker stop` does. Returns its exit status."""
        os.kill(self.init_pid, signal.SIGTERM)
        return self.process.wait()

    def kill(self) -> None:
        os.kill(self.init_pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def build_image(folder: Path) -> Iterator[Image]:
    """Build the image on a Debian base that is made here: no image registry is contacted."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"building an image needs root and tools; missing: {', '.join(missing) or 'root'}")
    buildah = _Buildah(folder / "store")
    try:
        buildah.make_base(folder)
        buildah.build(folder)
        container = buildah.run("from", "--pull-never", "forgeline")
        inspected = json.loads(buildah.run("inspect", "--type=image", "forgeline"))
        yield Image(Path(buildah.run("mount", container)), inspected["Docker"]["config"])
    finally:
        buildah.run("rm", "--all")
        buildah.run("rmi", "--all", "--force")


class _Buildah:
    def __init__(self, store: Path) -> None:
        self._command = ["buildah", "--root", str(store / "root"), "--runroot", str(store / "run")]
        self._command += ["--storage-driver", "overlay"]

    def run(self, *arguments: str) -> str:
        environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
        completed = subprocess.run(
            [*self._command, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert completed.returncode == 0, completed.stdout + completed.stderr
        return completed.stdout.strip()

    def make_base(self, folder: Path) -> None:
        archive = folder / "base.tar"
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", SUITE, archive], check=True)
        container = self.run("from", "scratch")
        self.run("add", "--quiet", container, str(archive), "/")
        self.run("commit", "--quiet", container, BASE)
        archive.unlink()

    def build(self, folder: Path) -> None:
        pip = folder / "pip.conf"
        pip.write_text("[global]\ncert = /run/certificates.crt\n")
        volumes = [f"--volume={pip}:/etc/pip.conf:ro", f"--volume={CERTIFICATES}:/run/certificates.crt:ro"]
        file, ignored = FILES / "Dockerfile", FILES / "Dockerfile.dockerignore"
        self.run(
            *("bud", "--quiet", "--pull-never", "--format=docker", "--tag=forgeline", *volumes),
            *(f"--build-arg=BASE={BASE}", f"--ignorefile={ignored}", f"--file={file}", "."),
        )
