"""The server in a process of its own.

async with running_process(tmp_path, models={"m": scripted_model("echo")}) as process:
    async with process.http.post(process.url + "/api/models/m", json={"text": "hi"}) as response: ...
    result = await process.stop()
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

from tests.running_server import write_presets

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class ProcessResult:
    """A process that has ended."""

    code: int
    out: str
    err: str


@dataclass
class ServerProcess:
    """A server in a process of its own."""

    child: asyncio.subprocess.Process
    http: aiohttp.ClientSession
    first_line: str
    log_path: Path  # what it says on standard error, after what servers before it have said there
    log_offset: int
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = self.first_line.split()[-1]

    async def stop(self, number: int = signal.SIGTERM) -> ProcessResult:
        self.child.send_signal(number)
        out, _ = await self.child.communicate()
        assert self.child.returncode is not None
        return ProcessResult(self.child.returncode, self.first_line + out.decode(), self.stderr())

    def stderr(self) -> str:
        """What it has written to standard error so far."""
        return self.log_path.read_bytes()[self.log_offset :].decode()

    async def get_status(self, path: str) -> int:
        async with self.http.get(self.url + path) as response:
            return response.status


async def start_process(
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
async def running_process(
    folder: Path,
    *flags: str,
    models: Mapping[str, Mapping[str, Any]],
    stages: list[Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[ServerProcess]:
    """A second one on the same folder goes on with the data of the first."""
    write_presets(folder / "presets", models, stages)
    log = folder / "server.log"
    with log.open("ab") as stderr:  # a pipe that nobody reads would hold up a server that logs a lot
        begins = stderr.tell()
        child = await start_process(folder, *flags, environ=environ, stderr=stderr)
    assert child.stdout is not None
    try:
        async with aiohttp.ClientSession() as http:
            yield ServerProcess(child, http, (await child.stdout.readline()).decode(), log, begins)
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.communicate()


async def run_to_end(folder: Path, *flags: str, environ: Mapping[str, str] | None = None) -> ProcessResult:
    """Runs to the end: for what does not serve."""
    (folder / "presets").mkdir(exist_ok=True)
    child = await start_process(folder, *flags, environ=environ)
    out, err = await child.communicate()
    assert child.returncode is not None
    return ProcessResult(child.returncode, out.decode(), err.decode())
