"""docs/PLUGINS.md is a package: it is installed as any other, and does what the page says, in a server of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks
from tests.docs.running import SHELL, check_output, turns

PAGE = "docs/PLUGINS.md"
PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
OFFLINE = ["--no-index", "--no-deps", "--no-build-isolation"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's files as it names them, and its package installed in `site`."""
    folder = tmp_path_factory.mktemp("plugins")
    for block in blocks(PAGE):
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


def typed(command: str, folder: Path, environ: dict[str, str]) -> str:
    """What is printed where this is typed, which calls the checkout's programs and files by their names there."""
    command = command.replace(".venv/bin/", f"{Path(sys.executable).parent}/")
    command = command.replace(" run.py", f" {ROOT}/run.py").replace(" tests/", f" {ROOT}/tests/")
    done = subprocess.run([*SHELL, command], cwd=folder, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def test_the_package_is_used_as_the_page_says(folder: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(folder / "site")}
    (use,) = (block for block in blocks(PAGE) if "forgeline ask" in block.code)
    (_, _), *commands = turns(use.code)  # the first installs it
    with serving(folder, environ) as address:
        for command, said in commands:
            check_output(typed(command, folder, {**environ, "FORGELINE_SERVER": address}), said)


def test_the_stage_keeps_the_rules_that_the_page_sends_it_to(folder: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": f"{folder / 'site'}:{ROOT}"}
    (hold,) = (block for block in blocks(PAGE) if "pytest" in block.code)
    ((command, _),) = turns(hold.code)
    assert "5 passed" in typed(f"{command} -c {ROOT}/setup.cfg -p no:cacheprovider", folder, environ)


def test_the_page_s_code_is_as_clean_as_ours(folder: Path) -> None:
    config = ["--config", str(ROOT / "pyproject.toml"), "--ignore", "S101", str(folder / "forgeline-extras")]
    subprocess.run([sys.executable, "-m", "ruff", "check", *config], check=True)
    subprocess.run([sys.executable, "-m", "ruff", "format", "--check", *config[:2], config[-1]], check=True)
