"""The command line as its users run it: a process of its own, with pipes or at a terminal.

ended = await typed(server.url, "ask", "hi", "-m", "echo")

async with started(server.url, "ask", "hi", "-m", "slow") as command: ...
async with terminal(server.url, "ask", "hi", "-m", "slow") as screen: ...
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

from tests.aio import UNHURRIED
from tests.processes import ROOT, Ended

COMMAND = (sys.executable, "-m", "server.client")


def environment(server: str | None, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Nothing of the tester's own settings, and one width for all."""
    ours = ("FORGELINE_", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM", "COLORTERM")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    address = {} if server is None else {"FORGELINE_SERVER": server}
    return {**inherited, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **address, **(environ or {})}


@asynccontextmanager
async def started(
    server: str | None,
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    command: tuple[str, ...] = COMMAND,
    **kwargs: Any,
) -> AsyncIterator[Process]:
    """A command with pipes for its standard streams."""
    streams: dict[str, Any] = {"stdin": PIPE, "stdout": PIPE, "stderr": PIPE, **kwargs}
    child = await asyncio.create_subprocess_exec(*command, *arguments, env=environment(server, environ), **streams)
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()


async def ended(child: Process, given: bytes = b"") -> Ended:
    out, err = await child.communicate(given)
    assert child.returncode is not None
    return Ended(child.returncode, (out or b"").decode(), (err or b"").decode())


async def typed(
    server: str | None,
    *arguments: str,
    given: bytes = b"",
    environ: Mapping[str, str] | None = None,
    **kwargs: Any,
) -> Ended:
    """A command, run to its end."""
    async with started(server, *arguments, environ=environ, **kwargs) as child:
        return await ended(child, given)


class Screen:
    """A command at a terminal. `raw` is all that it wrote, `lines` what a person sees of it."""

    def __init__(self, child: pexpect.spawn[str], width: int, height: int) -> None:
        self.raw = ""
        self._child = child
        self._seen = pyte.Screen(width, height)
        self._stream = pyte.Stream(self._seen)
        child.logfile_read = self

    def write(self, text: str) -> None:
        """What pexpect calls with all that it reads."""
        self.raw += text
        self._stream.feed(text)

    def flush(self) -> None:
        """What pexpect calls too."""

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._seen.display if line.strip()]

    async def shows(self, *texts: str) -> None:
        """Returns once these have been written, in this order."""
        for text in texts:
            await asyncio.to_thread(self._child.expect_exact, text, timeout=UNHURRIED)

    def type(self, text: str) -> None:
        self._child.send(text)

    def interrupt(self) -> None:
        self._child.sendintr()

    async def exit_code(self) -> int:
        await asyncio.to_thread(self._child.expect, pexpect.EOF, timeout=UNHURRIED)
        await asyncio.to_thread(self._child.wait)
        return self._child.exitstatus if self._child.exitstatus is not None else -(self._child.signalstatus or 0)


@asynccontextmanager
async def terminal(
    server: str | None,
    *arguments: str,
    environ: Mapping[str, str] | None = None,
    width: int = 80,
    height: int = 24,
    command: tuple[str, ...] = COMMAND,
) -> AsyncIterator[Screen]:
    program, *rest = [*command, *arguments]
    child: pexpect.spawn[str] = pexpect.spawn(
        program, rest, env=environment(server, environ), dimensions=(height, width), encoding="utf-8", timeout=UNHURRIED
    )
    try:
        yield Screen(child, width, height)
    finally:
        await asyncio.to_thread(child.close, force=True)
