"""Another process that appends to a file, as a job's supervisor does.

async with writing(path) as writer:
    await writer.write(b"half a li", b"ne\\n")
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_WRITER = """
import os, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for line in sys.stdin:
    for piece in line.split():
        os.write(log, bytes.fromhex(piece))
    print(flush=True)
"""


class Writer:
    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child

    async def write(self, *pieces: bytes) -> None:
        """Append each with a write of its own; return when all are in the file. An empty piece creates the file."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(b" ".join(piece.hex().encode() for piece in pieces) + b"\n")
        await self._child.stdout.readline()

    async def close(self) -> None:
        assert self._child.stdin is not None
        self._child.stdin.close()
        await self._child.wait()


@asynccontextmanager
async def open_writer(path: Path) -> AsyncIterator[Writer]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-S", "-c", _WRITER, str(path)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**24,
    )
    writer = Writer(child)
    try:
        yield writer
    finally:
        await writer.close()
