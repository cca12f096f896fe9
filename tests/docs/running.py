"""How an example of a page is run, and how what it prints is held against what the page says."""

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

SHOWN = "http://localhost:5000"  # what pages call the server
SECONDS = 100  # for one example; the first question loads the model
SHELL = ["bash", "-c"]
RUNNERS = {"shell": SHELL, "python": [sys.executable, "-c"], "node": ["node", "--input-type=module", "-e"]}
VOLATILE = re.compile(
    r'("(?:stream_id|time|id|request_id|job_id)":)"[^"]*"|("(?:\w+_ms|next_offset)":)[\d.]+|^(id: )\d+$'
    r"|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<=after )\d+ s",
    re.MULTILINE,
)
"""What is another at each run: ids, times."""

Turn = tuple[str, str]
"""A command that is typed, and what is said to come of it."""


@contextmanager
def server(data: Path) -> Iterator[str]:
    """The address of a server with the shipped presets, as `make run` starts it; however slow, it has no heartbeats."""
    command = [sys.executable, "run.py", "--port", "0", "--data", str(data), "--heartbeat", "1000"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=without_aws()) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().removeprefix("listening on ").strip()
        finally:
            process.terminate()


def without_aws() -> dict[str, str]:
    """The examples show what somebody without an account sees."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "FORGELINE_"))}
    files = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), os.devnull)
    return {**inherited, **files, "AWS_EC2_METADATA_DISABLED": "true"}


def check_example(block: Block, address: str, folder: Path) -> None:
    """Runs a block, in a folder of its own that has `docs/`, and compares what it prints."""
    (folder / "docs").symlink_to(ROOT / "docs")
    environ = {**without_aws(), "FORGELINE_SERVER": address}
    environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
    if block.argument == "terminal":
        for command, output in turns(block.code):
            check_output(run([*SHELL, command], folder, environ), output)
    else:
        runner = RUNNERS[block.argument]
        if shutil.which(runner[0]) is None:
            pytest.skip(f"{runner[0]} is not installed")
        code = block.code.replace(SHOWN, address).replace(SHOWN.replace("http", "ws"), address.replace("http", "ws"))
        check_output(run([*runner, code], folder, environ), block.output or "")


def run(command: list[str], folder: Path, environ: Mapping[str, str]) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def turns(code: str) -> list[Turn]:
    """What is typed after each `$ ` (or is a key, as ^C), and the lines below it."""
    parts = re.split(r"^(?:\$ (.*)|(\^C))\n", code, flags=re.MULTILINE)
    assert not parts[0].strip(), f"{parts[0]!r} stands before the first command"
    return [(typed or key, output) for typed, key, output in zip(parts[1::3], parts[2::3], parts[3::3], strict=True)]


def check_output(printed: str, expected: str) -> None:
    """`...` stands for anything; a page that says nothing of the output promises nothing."""
    rest = VOLATILE.sub("~", printed)
    for piece in filter(None, map(str.strip, VOLATILE.sub("~", expected).split("..."))):
        before, found, rest = rest.partition(piece)
        assert found, f"{piece!r} is not in what came: {before!r}"
