"""docs/GETTING-STARTED.md, typed word for word into three terminals of a fresh clone, with an empty home.

Two things are not the page's own: where the clone comes from, and the port, for 5000 may be taken.
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

from tests.docs.pages import ROOT, Block, blocks
from tests.docs.running import SHELL, check_output, run, turns
from tests.docs.test_starting import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

PAGE = "docs/GETTING-STARTED.md"
PROMPT = "typed> "
SECONDS = 600  # for one command: the first installs everything
PASSED_ON = ("PATH", "PIP_", "SSL_", "REQUESTS_CA_BUNDLE", "http_proxy", "https_proxy", "no_proxy")
"""What a machine needs to reach a registry; nothing else of this process's environment gets there."""


class Terminal:
    """A shell at a terminal, into which commands are typed."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._shell = pexpect.spawn(
            "bash",
            ["--norc", "--noprofile"],
            cwd=str(folder),
            env={**environ, "PS1": PROMPT},
            encoding="utf-8",
            dimensions=(40, 400),
            timeout=SECONDS,
        )
        self._shell.setecho(False)
        self._shell.expect_exact(PROMPT)

    def type(self, command: str, output: str, stays: bool) -> None:
        """Types this, and waits for its end, or, where it stays, for the last line that is said to come of it."""
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
        check_output(plain(printed), output)

    def close(self) -> None:
        self._shell.sendintr()  # what still runs there; below nohup it would not hear of the shell's end
        with suppress(pexpect.TIMEOUT, pexpect.EOF):
            self._shell.expect_exact(PROMPT, timeout=20)
        self._shell.close(force=True)


def plain(printed: str) -> str:
    """Without what colours it, and without the spaces that fill a table's last column."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]", "", printed).replace("\r", "")
    return re.sub(r" +$", "", text, flags=re.MULTILINE)


def stays(command: str) -> bool:
    """Whether this runs until it is interrupted."""
    return command in ("make run", "make -s demo-aws | tee .venv/demo.env")


@pytest.fixture
def port() -> str:
    return free_port()


@pytest.fixture
def environ(tmp_path: Path, port: str) -> dict[str, str]:
    (tmp_path / "home").mkdir()
    needed = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
    needed["PATH"] = ":".join(path for path in needed["PATH"].split(":") if not path.startswith(str(ROOT)))
    server = {"FORGELINE_PORT": port, "FORGELINE_SERVER": f"http://127.0.0.1:{port}"}
    return {**needed, **server, "HOME": str(tmp_path / "home"), "TERM": "xterm", "LANG": "C.UTF-8"}


@pytest.fixture
def terminals(tmp_path: Path, environ: dict[str, str]) -> Iterator[dict[str, Terminal]]:
    found = {number: Terminal(tmp_path, environ) for number in ("1", "2", "3")}
    yield found
    for terminal in found.values():
        terminal.close()


def test_the_page_works_word_for_word_in_a_fresh_clone(
    tmp_path: Path, port: str, terminals: dict[str, Terminal]
) -> None:
    for tool in ("git", "make", "curl"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    for block in blocks(PAGE):
        match block.kind:
            case "save":
                (tmp_path / "forgeline" / block.argument).write_text(block.code)
            case "terminal":
                type_all(terminals[block.argument], block, port)
    assert run([*SHELL, "git status --short"], tmp_path / "forgeline", os.environ) == ""


def type_all(terminal: Terminal, block: Block, port: str) -> None:
    code = block.code.replace(":5000", f":{port}").replace("ADDRESS", ROOT.as_uri())
    for command, output in turns(code):
        terminal.type(command, output, stays(command))
