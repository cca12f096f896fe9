"""Run the command line as users do: in a process of its own, with pipes or at a terminal.

result = await run_cli(server.url, "ask", "hi", "-m", "echo")

async with start_cli(server.url, "ask", "hi", "-m", "slow") as process: ...
async with open_terminal(server.url, "ask", "hi", "-m", "slow") as screen: ...
"""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import pexpect
import pyte

from tests.async_tests import SLOW_DEADLINE
from tests.processes import ROOT, ProcessResult

COMMAND = (sys.executable, "-m", "server.client")


def cli_environment(server: str | None, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment without the settings of whoever runs the tests, and with a fixed terminal type."""
    excluded = ("FORGELINE_", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM", "COLORTERM")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(excluded)}
    address = {} if server is None else {"FORGELINE_SERVER": server}
    return {**inherited, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **address, **(environ or {})}


@asynccontextmanager
async def start_cli(
    server: str | None,
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    command: tuple[str, ...] = COMMAND,
    **kwargs: Any,
) -> AsyncIterator[Process]:
    """Start a command with pipes as its standard streams. Kills it at the end."""
    streams: dict[str, Any] = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE, **kwargs}
    process = await asyncio.create_subprocess_exec(
        *command, *arguments, env=cli_environment(server, environ), **streams
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def wait_for_exit(process: Process, stdin: bytes = b"") -> ProcessResult:
    stdout, stderr = await process.communicate(stdin)
    assert process.returncode is not None
    return ProcessResult(process.returncode, (stdout or b"").decode(), (stderr or b"").decode())


async def run_cli(
    server: str | None,
    *arguments: str,
    stdin: bytes = b"",
    environ: Mapping[str, str] | None = None,
    **kwargs: Any,
) -> ProcessResult:
    """Run a command to its end."""
    async with start_cli(server, *arguments, environ=environ, **kwargs) as process:
        return await wait_for_exit(process, stdin)


class Terminal:
    """A command at a terminal. `raw` is everything it wrote, `lines` the text on the screen."""

    def __init__(self, child: pexpect.spawn[str], width: int, height: int) -> None:
        self.raw = ""
        self._child = child
        self._screen = pyte.Screen(width, height)
        self._stream = pyte.Stream(self._screen)
        child.logfile_read = self

    def write(self, text: str) -> None:
        """Called by pexpect with everything it reads."""
        self.raw += text
        self._stream.feed(text)

    def flush(self) -> None:
        """Called by pexpect."""

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display if line.strip()]

    async def wait_for_output(self, *texts: str) -> None:
        """Return once these texts were written, in this order."""
        for text in texts:
            await asyncio.to_thread(self._child.expect_exact, text, timeout=SLOW_DEADLINE)

    def type(self, text: str) -> None:
        self._child.send(text)

    def interrupt(self) -> None:
        self._child.sendintr()

    async def exit_code(self) -> int:
        await asyncio.to_thread(self._child.expect, pexpect.EOF, timeout=SLOW_DEADLINE)
        await asyncio.to_thread(self._child.wait)
        return self._child.exitstatus if self._child.exitstatus is not None else -(self._child.signalstatus or 0)


@asynccontextmanager
async def open_terminal(
    server: str | None,
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    width: int = 80,
    height: int = 24,
    command: tuple[str, ...] = COMMAND,
) -> AsyncIterator[Terminal]:
    program, *rest = [*command, *arguments]
    child: pexpect.spawn[str] = pexpect.spawn(
        program,
        rest,
        env=cli_environment(server, environ),
        dimensions=(height, width),
        encoding="utf-8",
        timeout=SLOW_DEADLINE,
    )
    try:
        yield Terminal(child, width, height)
    finally:
        await asyncio.to_thread(child.close, force=True)
