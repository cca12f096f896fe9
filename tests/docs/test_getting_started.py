"""docs/GETTING-STARTED.md, typed into three terminals of a fresh clone, with an empty home.

Only the clone's URL and the port are replaced: port 5000 may be in use.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pexpect
import pytest

from tests.docs.pages import ROOT, Block, blocks_of
from tests.docs.run_examples import SHELL, check_output, parse_turns, run
from tests.docs.test_starting import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PAGE = "docs/GETTING-STARTED.md"
PROMPT = "typed> "
COMMAND_TIMEOUT = 600  # seconds for one command; the first installs everything
INHERITED_VARIABLES = ("PATH", "PIP_", "SSL_", "REQUESTS_CA_BUNDLE", "http_proxy", "https_proxy", "no_proxy")
"""Variables that may be needed to reach a package registry; no others are inherited."""


class Terminal:
    """A shell at a terminal."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._shell = pexpect.spawn(
            "bash",
            ["--norc", "--noprofile"],
            cwd=str(folder),
            env={**environ, "PS1": PROMPT},
            encoding="utf-8",
            dimensions=(40, 400),
            timeout=COMMAND_TIMEOUT,
        )
        self._shell.setecho(False)
        self._shell.expect_exact(PROMPT)

    def run_command(self, command: str, output: str, stays: bool) -> None:
        """Type a command and wait for its end or, if it `stays`, for the last line of its documented output."""
        if command == "^C":
            self._shell.sendintr()
        else:
            self._shell.sendline(command)
        if stays:
            last = output.replace("...", "").strip().splitlines()[-1]
            self._shell.expect_exact(last)
            printed = f"{self._shell.before}{last}\n"
        else:
            self._shell.expect_exact(PROMPT)
            printed = str(self._shell.before)
        check_output(strip_terminal_codes(printed), output)

    def close(self) -> None:
        self._shell.sendintr()  # under nohup, a running command would survive the shell
        with suppress(pexpect.TIMEOUT, pexpect.EOF):
            self._shell.expect_exact(PROMPT, timeout=20)
        self._shell.close(force=True)


def strip_terminal_codes(printed: str) -> str:
    """Remove colours and trailing spaces."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]", "", printed).replace("\r", "")
    return re.sub(r" +$", "", text, flags=re.MULTILINE)


def runs_until_interrupted(command: str) -> bool:
    """Whether a command runs until it is interrupted."""
    return command in ("make run", "make -s demo-aws | tee .venv/demo.env")


@pytest.fixture
def port() -> str:
    return free_port()


@pytest.fixture
def environ(tmp_path: Path, port: str) -> dict[str, str]:
    (tmp_path / "home").mkdir()
    needed = {name: value for name, value in os.environ.items() if name.startswith(INHERITED_VARIABLES)}
    needed["PATH"] = ":".join(path for path in needed["PATH"].split(":") if not path.startswith(str(ROOT)))
    server = {"FORGELINE_PORT": port, "FORGELINE_SERVER": f"http://127.0.0.1:{port}"}
    return {**needed, **server, "HOME": str(tmp_path / "home"), "TERM": "xterm", "LANG": "C.UTF-8"}


@pytest.fixture
def terminals(tmp_path: Path, environ: dict[str, str]) -> Iterator[dict[str, Terminal]]:
    opened = {number: Terminal(tmp_path, environ) for number in ("1", "2", "3")}
    yield opened
    for terminal in opened.values():
        terminal.close()


def test_getting_started_works_in_fresh_clone(tmp_path: Path, port: str, terminals: dict[str, Terminal]) -> None:
    for tool in ("git", "make", "curl"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    for block in blocks_of(PAGE):
        match block.kind:
            case "save":
                (tmp_path / "forgeline" / block.argument).write_text(block.code)
            case "terminal":
                run_block(terminals[block.argument], block, port)
    assert run([*SHELL, "git status --short"], tmp_path / "forgeline", os.environ) == ""


def run_block(terminal: Terminal, block: Block, port: str) -> None:
    code = block.code.replace(":5000", f":{port}").replace("ADDRESS", ROOT.as_uri())
    for command, output in parse_turns(code):
        terminal.run_command(command, output, runs_until_interrupted(command))
