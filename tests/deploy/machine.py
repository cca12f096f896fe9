"""A machine that runs the shipped unit under a real systemd: a container on an overlay of this file system.

with create_machine(tmp_path) as machine:
    machine.boot()
    machine.install(FORGELINE_PORT=5001)
    machine.power_cut()
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

from tests.deploy.documented import documented_commands
from tests.deploy.namespaces import find_namespace_init
from tests.processes import ROOT

SYSTEMD = ROOT / "deploy" / "systemd"
VERSIONS = ("1", "2")
VERSION_FILES = (
    "server",
    "pipeline",
    "infraforge_runner",
    "presets",
    "deploy",
    "run.py",
)  # of a version, except its .venv
TOOLS = ("systemd-nspawn", "nsenter", "mount", "umount")
PYTHON = "/opt/python"
TARGET = "forgeline-test.target"  # starts none of this machine's services
BOOT_TIMEOUT = 20.0  # seconds


class Machine:
    """`root` is its disk, which survives a power cut and is deleted with the test."""

    def __init__(self, root: Path, log: Path) -> None:
        self.root = root
        self.data = root / "var/lib/forgeline"
        self.presets = root / "etc/forgeline/presets"
        self._log = log
        self._nspawn: subprocess.Popen[bytes] | None = None
        self.init_pid: int | None = None  # outside the machine

    # --- disk ----------------------------------------------------------------------------------

    def install_versions(self) -> None:
        """Install two versions, each in a folder of its own."""
        self.write(f"etc/systemd/system/{TARGET}", "[Unit]\nDefaultDependencies=no\n")
        for version in VERSIONS:
            folder = self.root / "opt/forgeline" / version
            self._make_venv(folder / ".venv")
            for part in VERSION_FILES:
                _copy(ROOT / part, folder / part)

    def _make_venv(self, venv: Path) -> None:
        """Make an environment with the packages of this test.

        Its interpreter is bound to another path, since the unit hides home directories.
        """
        (venv / "bin").mkdir(parents=True)
        (venv / "bin/python").symlink_to(f"{PYTHON}/bin/python3")
        (venv / "pyvenv.cfg").write_text(f"home = {PYTHON}/bin\n")
        (venv / "lib").mkdir()
        self.write("etc/ld.so.conf.d/000-python.conf", f"{PYTHON}/lib\n")

    def write(self, path: str, content: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)

    # --- power ---------------------------------------------------------------------------------

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
        deadline = time.monotonic() + BOOT_TIMEOUT
        while not self._is_booted(self._nspawn):
            assert self._nspawn.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, "systemd did not come up: " + self._log.read_text()
            time.sleep(0.05)  # systemd offers nothing to wait for
        self.run("ldconfig")  # so that this libpython is found before Debian's

    def _is_booted(self, nspawn: subprocess.Popen[bytes]) -> bool:
        self.init_pid = find_namespace_init(nspawn.pid)
        return self.init_pid is not None and self.run("systemctl", "is-active", TARGET, check=False) == "active"

    def power_cut(self) -> None:
        """Kill all processes at once."""
        if self._nspawn is not None:
            os.kill(self.init_pid or self._nspawn.pid, signal.SIGKILL)  # the kernel kills the others with process 1
            self._nspawn.wait()
            self._nspawn = None

    # --- commands ------------------------------------------------------------------------

    def install(self, **environment: object) -> None:
        """Install as docs/OPERATION.md documents. `environment` is written to the unit's environment file."""
        self.run_documented("install", VERSION="1")
        with (self.root / "etc/forgeline/forgeline.env").open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in environment.items())

    def run_documented(self, name: str, **instead: str) -> str:
        """Run a block of commands of docs/OPERATION.md."""
        return self.run("sh", "-ec", f"umask 077; cd /opt/forgeline/1; {documented_commands(name, **instead)}")

    def run(self, *command: str, check: bool = True) -> str:
        """Run a command in the machine. Returns its standard output."""
        enter = ["nsenter", f"--target={self.init_pid}", "--mount", "--uts", "--ipc", "--pid", "--cgroup"]
        completed = subprocess.run([*enter, *command], capture_output=True, text=True, check=False)
        assert completed.returncode == 0 or not check, completed.stderr
        return completed.stdout.strip()

    def systemctl(self, *arguments: str) -> str:
        return self.run("systemctl", *arguments)

    def property(self, name: str) -> str:
        """Return a property of the service, from `systemctl show`."""
        return self.systemctl("show", "forgeline", f"--property={name}", "--value")


@contextmanager
def create_machine(folder: Path) -> Iterator[Machine]:
    """Create a machine. Skips the test without root or the tools."""
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
        machine = Machine(root, folder / "nspawn.log")
        machine.install_versions()
        stack.callback(machine.power_cut)
        yield machine


def _mount(stack: ExitStack, target: Path, *arguments: str) -> None:
    completed = subprocess.run(["mount", *arguments, str(target)], capture_output=True, text=True, check=False)
    if completed.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {completed.stderr.strip()}")
    stack.callback(subprocess.run, ["umount", "--lazy", str(target)], check=True)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)
