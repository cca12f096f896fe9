"""The server in a process of its own.

async with running(tmp_path, models={"m": says("echo")}) as process:
    async with process.http.post(process.url + "/api/models/m", json={"text": "hi"}) as response: ...
    ended = await process.stopped()
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import aiohttp

from tests.serving import write_presets

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Ended:
    """A process that has ended."""

    code: int
    out: str
    err: str


@dataclass
class Process:
    """A server in a process of its own."""

    child: asyncio.subprocess.Process
    http: aiohttp.ClientSession
    first_line: str
    log: Path  # what it says on standard error, after what servers before it have said there
    log_begins: int
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = self.first_line.split()[-1]

    async def stopped(self, number: int = signal.SIGTERM) -> Ended:
        self.child.send_signal(number)
        out, _ = await self.child.communicate()
        assert self.child.returncode is not None
        return Ended(self.child.returncode, self.first_line + out.decode(), self.said())

    def said(self) -> str:
        """What it has written to standard error so far."""
        return self.log.read_bytes()[self.log_begins :].decode()

    async def status(self, path: str) -> int:
        async with self.http.get(self.url + path) as response:
            return response.status


async def start(
    folder: Path,
    *flags: str,
    environ: Mapping[str, str] | None = None,
    stderr: int | IO[bytes] = asyncio.subprocess.PIPE,
) -> asyncio.subprocess.Process:
    arguments = ["--port", "0", "--presets", str(folder / "presets"), "--data", str(folder / "data"), *flags]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FORGELINE_")}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "run.py"),
        *arguments,
        cwd=folder,
        env={**inherited, **(environ or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
    )


@asynccontextmanager
async def running(
    folder: Path,
    *flags: str,
    models: Mapping[str, Mapping[str, Any]],
    stages: list[Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Process]:
    """A second one on the same folder goes on with the data of the first."""
    write_presets(folder / "presets", models, stages)
    log = folder / "server.log"
    with log.open("ab") as stderr:  # a pipe that nobody reads would hold up a server that logs a lot
        begins = stderr.tell()
        child = await start(folder, *flags, environ=environ, stderr=stderr)
    assert child.stdout is not None
    try:
        async with aiohttp.ClientSession() as http:
            yield Process(child, http, (await child.stdout.readline()).decode(), log, begins)
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.communicate()


async def ran(folder: Path, *flags: str, environ: Mapping[str, str] | None = None) -> Ended:
    """Runs to the end: for what does not serve."""
    (folder / "presets").mkdir(exist_ok=True)
    child = await start(folder, *flags, environ=environ)
    out, err = await child.communicate()
    assert child.returncode is not None
    return Ended(child.returncode, out.decode(), err.decode())
