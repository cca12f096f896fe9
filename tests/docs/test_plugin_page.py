"""docs/PLUGINS.md: its package is installed, used in a server as documented, and passes the conformance tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks_of
from tests.docs.run_examples import SHELL, check_output, parse_turns

PAGE = "docs/PLUGINS.md"
PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
OFFLINE = ["--no-index", "--no-deps", "--no-build-isolation"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the page, and its package installed in `site`."""
    folder = tmp_path_factory.mktemp("plugins")
    for block in blocks_of(PAGE):
        if block.kind == "file":
            path = folder / block.argument
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code)
    (folder / "forgeline-extras/forgeline_extras/__init__.py").touch()
    subprocess.run([*PIP, *OFFLINE, "--target", folder / "site", folder / "forgeline-extras"], check=True)
    return folder


@contextmanager
def serving(folder: Path, environ: dict[str, str]) -> Iterator[str]:
    options = ["--port", "0", "--presets", "presets", "--data", "data", "--drain", "0"]
    command = [sys.executable, str(ROOT / "run.py"), *options]
    with subprocess.Popen(command, cwd=folder, env=environ, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().split()[-1]
        finally:
            server.terminate()


def run_command(command: str, folder: Path, environ: dict[str, str]) -> str:
    """Run a command of the page in the folder, with the checkout's programs and files, and return its output."""
    command = command.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    command = command.replace(" run.py", f" {ROOT}/run.py").replace(" tests/", f" {ROOT}/tests/")
    process = subprocess.run([*SHELL, command], cwd=folder, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    return process.stdout


def test_plugin_page_commands_print_documented_output(folder: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(folder / "site")}
    (usage,) = (block for block in blocks_of(PAGE) if "forgeline ask" in block.code)
    (_, _), *commands = parse_turns(usage.code)  # the first installs it
    with serving(folder, environ) as address:
        for command, expected in commands:
            check_output(run_command(command, folder, {**environ, "FORGELINE_SERVER": address}), expected)


def test_plugin_page_stage_passes_conformance_tests(folder: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": f"{folder / 'site'}:{ROOT}"}
    (block,) = (block for block in blocks_of(PAGE) if "pytest" in block.code)
    ((command, _),) = parse_turns(block.code)
    assert "5 passed" in run_command(f"{command} -c {ROOT}/setup.cfg -p no:cacheprovider", folder, environ)


def test_plugin_page_code_passes_ruff(folder: Path) -> None:
    config = ["--config", str(ROOT / "pyproject.toml"), "--ignore", "S101", str(folder / "forgeline-extras")]
    subprocess.run([sys.executable, "-m", "ruff", "check", *config], check=True)
    subprocess.run([sys.executable, "-m", "ruff", "format", "--check", *config[:2], config[-1]], check=True)
