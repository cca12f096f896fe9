"""Run the examples in the documentation and compare their output with the documented output."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Block

DOCUMENTED_URL = "http://localhost:5000"  # the server's URL in the pages
EXAMPLE_TIMEOUT = 100  # seconds; the first request loads the embedded model
SHELL = ["bash", "-c"]
RUNNERS = {"shell": SHELL, "python": [sys.executable, "-c"], "node": ["node", "--input-type=module", "-e"]}
VOLATILE = re.compile(
    r'("(?:stream_id|time|id|request_id|job_id)":)"[^"]*"|("(?:\w+_ms|next_offset)":)[\d.]+|^(id: )\d+$'
    r"|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<=after )\d+ s",
    re.MULTILINE,
)
"""Values that differ at each run: ids and times."""

Turn = tuple[str, str]
"""A command and its documented output."""


@contextmanager
def start_server(data: Path) -> Iterator[str]:
    """Start a server with the shipped presets, as `make run` does, but without heartbeats. Yields its URL."""
    command = [sys.executable, "run.py", "--port", "0", "--data", str(data), "--heartbeat", "1000"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment_without_aws()
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().removeprefix("listening on ").strip()
        finally:
            process.terminate()


def environment_without_aws() -> dict[str, str]:
    """The environment of a user without an AWS account, which the examples show."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FORGELINE_"))}
    files = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)
    return {**inherited, **files, "AWS_EC2_METADATA_DISABLED": "true"}


def check_example(block: Block, address: str, folder: Path) -> None:
    """Run a block in a folder of its own that has `docs/`, and compare its output."""
    (folder / "docs").symlink_to(ROOT / "docs")
    environ = {**environment_without_aws(), "FORGELINE_SERVER": address}
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    if block.argument == "terminal":
        for command, output in parse_turns(block.code):
            check_output(run([*SHELL, command], folder, environ), output)
    else:
        runner = RUNNERS[block.argument]
        if shutil.which(runner[0]) is None:
            pytest.skip(f"{runner[0]} is not installed")
        code = block.code.replace(DOCUMENTED_URL, address).replace(
            DOCUMENTED_URL.replace("http", "ws"), address.replace("http", "ws")
        )
        check_output(run([*runner, code], folder, environ), block.output or "")


def run(command: list[str], folder: Path, environ: Mapping[str, str]) -> str:
    completed = subprocess.run(
        command,
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
        timeout=EXAMPLE_TIMEOUT,
    )
    assert completed.returncode == 0, completed.stdout
    return completed.stdout


def parse_turns(code: str) -> list[Turn]:
    """Split a terminal session into commands (after `$ `, or the key ^C) and the output below each."""
    parts = re.split(r"^(?:\$ (.*)|(\^C))\n", code, flags=re.MULTILINE)
    assert not parts[0].strip(), f"{parts[0]!r} stands before the first command"
    return [
        (command or key, output) for command, key, output in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)
    ]


def check_output(printed: str, expected: str) -> None:
    """Compare output with the documented one, in which `...` matches anything. Without one, anything passes."""
    remaining = VOLATILE.sub("~", printed)
    for expected_part in filter(None, map(str.strip, VOLATILE.sub("~", expected).split("..."))):
        before, is_found, remaining = remaining.partition(expected_part)
        assert is_found, f"{expected_part!r} is not in what came: {before!r}"
