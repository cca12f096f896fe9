"""README.md and docs/OPTIONS.md: `make run` starts the server as documented, and environment variables apply."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks_of
from tests.docs.run_examples import SHELL, environment_without_aws, parse_turns

pytestmark = pytest.mark.slow


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return str(listening.getsockname()[1])


@pytest.mark.parametrize("page", ["README.md", "docs/OPTIONS.md"])
def test_make_run_starts_server_as_documented(page: str, tmp_path: Path) -> None:
    (block,) = (block for block in blocks_of(page) if "make run" in block.code)
    ((command, output),) = parse_turns(block.code)
    documented_port, port = output.strip().rpartition(":")[2], free_port()
    environ = {**environment_without_aws(), "FORGELINE_PORT": port, "FORGELINE_DATA": str(tmp_path)}
    command = command.replace(documented_port, port).replace("make", "make -s")
    with subprocess.Popen(
        [*SHELL, command], cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as make:
        assert make.stdout is not None
        assert make.stdout.readline() == output.replace(documented_port, port)
        os.killpg(make.pid, signal.SIGINT)
