"""A machine that runs the shipped unit under a real systemd: this one's files under an overlay, booted as a container.

with machine(tmp_path) as box:
    box.boot()
    box.install(FORGELINE_PORT=5001)
    box.power_cut()
"""

# ruff: noqa: S607 - these tools are those of the PATH

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.deploy.documented import block
from tests.deploy.namespaces import first_below
from tests.processes import ROOT

SYSTEMD = ROOT / "deploy" / "systemd"
VERSIONS = ("1", "2")
PARTS = ("server", "pipeline", "infraforge_runner", "presets", "deploy", "run.py")  # of a version, beside its .venv
TOOLS = ("systemd-nspawn", "nsenter", "mount", "umount")
PYTHON = "/opt/python"
TARGET = "forgeline-test.target"  # none of this machine's own services is started
BOOT = 20.0  # seconds


class Machine:
    """`root` is its disk: what is written there outlives its power, and goes with the test."""

    def __init__(self, root: Path, log: Path) -> None:
        self.root = root
        self.data = root / "var/lib/forgeline"
        self.presets = root / "etc/forgeline/presets"
        self._log = log
        self._nspawn: subprocess.Popen[bytes] | None = None
        self.first: int | None = None  # the pid, out here, of its first process

    # --- its disk ----------------------------------------------------------------------------------

    def fill(self) -> None:
        """Two versions, each in its folder."""
        self.write(f"etc/systemd/system/{TARGET}", "[Unit]\nDefaultDependencies=no\n")
        for version in VERSIONS:
            folder = self.root / "opt/forgeline" / version
            self._make_venv(folder / ".venv")
            for part in PARTS:
                _copy(ROOT / part, folder / part)

    def _make_venv(self, venv: Path) -> None:
        """With the packages that this test runs with. Their interpreter may be in a home, which the unit protects."""
        (venv / "bin").mkdir(parents=True)
        (venv / "bin/python").symlink_to(f"{PYTHON}/bin/python3")
        (venv / "pyvenv.cfg").write_text(f"home = {PYTHON}/bin\n")
        (venv / "lib").mkdir()
        self.write("etc/ld.so.conf.d/000-python.conf", f"{PYTHON}/lib\n")

    def write(self, path: str, content: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)

    # --- its power ---------------------------------------------------------------------------------

    def boot(self) -> None:
        nspawn = ["systemd-nspawn", f"--directory={self.root}", "--register=no", "--keep-unit", "--console=pipe"]
        binds = [f"--bind-ro={sys.base_prefix}:{PYTHON}"]
        binds += [f"--bind-ro={sys.prefix}/lib:/opt/forgeline/{version}/.venv/lib" for version in VERSIONS]
        with self._log.open("ab") as log:
            self._nspawn = subprocess.Popen(
                [*nspawn, "--link-journal=no", *binds, "--boot", f"systemd.unit={TARGET}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + BOOT
        while not self._is_up(self._nspawn):
            assert self._nspawn.poll() is None, self._log.read_text()
            assert time.monotonic() < until, "systemd did not come up: " + self._log.read_text()
            time.sleep(0.05)  # nobody tells
        self.run("ldconfig")  # before any of Debian's: their libpython is another one

    def _is_up(self, nspawn: subprocess.Popen[bytes]) -> bool:
        self.first = first_below(nspawn.pid)
        return self.first is not None and self.run("systemctl", "is-active", TARGET, check=False) == "active"

    def power_cut(self) -> None:
        """Ends all its processes at once."""
        if self._nspawn is not None:
            os.kill(self.first or self._nspawn.pid, signal.SIGKILL)  # the kernel ends the others with the first
            self._nspawn.wait()
            self._nspawn = None

    # --- what goes on in it ------------------------------------------------------------------------

    def install(self, **environment: object) -> None:
        """As docs/OPERATION.md says. `environment` goes into the unit's file of variables."""
        self.type("install", VERSION="1")
        with (self.root / "etc/forgeline/forgeline.env").open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in environment.items())

    def type(self, name: str, **instead: str) -> str:
        """Runs a block of commands of docs/OPERATION.md."""
        return self.run("sh", "-ec", f"umask 077; cd /opt/forgeline/1; {block(name, **instead)}")

    def run(self, *command: str, check: bool = True) -> str:
        """Runs a command in it, and returns what that prints."""
        enter = ["nsenter", f"--target={self.first}", "--mount", "--uts", "--ipc", "--pid", "--cgroup"]
        done = subprocess.run([*enter, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout.strip()

    def systemctl(self, *arguments: str) -> str:
        return self.run("systemctl", *arguments)

    def property(self, name: str) -> str:
        """One of the service's, as systemctl show tells it."""
        return self.systemctl("show", "forgeline", f"--property={name}", "--value")


@contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """Skips the test where there can be none."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"a machine needs root and systemd-container; missing: {', '.join(missing) or 'root'}")
    with ExitStack() as stack:
        disk, root = folder / "disk", folder / "root"
        for path in (disk, root):
            path.mkdir()
        _mount(stack, disk, "-t", "tmpfs", "tmpfs")
        for name in ("upper", "work"):
            (disk / name).mkdir()
        layers = f"lowerdir=/,upperdir={disk / 'upper'},workdir={disk / 'work'}"
        _mount(stack, root, "-t", "overlay", "-o", layers, "overlay")
        box = Machine(root, folder / "nspawn.log")
        box.fill()
        stack.callback(box.power_cut)
        yield box


def _mount(stack: ExitStack, at: Path, *arguments: str) -> None:
    done = subprocess.run(["mount", *arguments, str(at)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")
    stack.callback(subprocess.run, ["umount", "--lazy", str(at)], check=True)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)
