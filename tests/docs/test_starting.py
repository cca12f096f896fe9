"""README.md and docs/OPTIONS.md: `make run` starts the server that they say, and variables count there."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks
from tests.docs.running import SHELL, turns, without_aws

pytestmark = pytest.mark.slow


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return str(listening.getsockname()[1])


@pytest.mark.parametrize("page", ["README.md", "docs/OPTIONS.md"])
def test_the_server_starts_as_the_page_says(page: str, tmp_path: Path) -> None:
    (block,) = (block for block in blocks(page) if "make run" in block.code)
    ((command, said),) = turns(block.code)
    shown, port = said.strip().rpartition(":")[2], free_port()
    environ = {**without_aws(), "FORGELINE_PORT": port, "FORGELINE_DATA": str(tmp_path)}
    command = command.replace(shown, port).replace("make", "make -s")
    with subprocess.Popen(
        [*SHELL, command], cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as make:
        assert make.stdout is not None
        assert make.stdout.readline() == said.replace(shown, port)
        os.killpg(make.pid, signal.SIGINT)
