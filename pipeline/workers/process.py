"""A worker process that can be killed: maps go to it, and maps come back, several conversations at once.

What blocks or may crash runs in one of these. It is started by exec when it is first needed, its death is told to
everyone who waits for it, and the next request starts a new one. Its side of the pipes is in `child.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline.workers.wire import LENGTH, MAX_MESSAGE, pack, unpack

SECONDS_TO_DIE = 5.0

# All else stays behind: the server's keys and credentials are nothing for a process that unpacks a stranger's files.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
_ROOT = str(Path(__file__).resolve().parents[2])


class WorkerDied(Exception):
    """The worker ended, or was killed, before it had answered. The message says how."""


class Exchange:
    """One conversation with a worker: a message, and the answers that carry its id.

    Answers wait here until they are read, so whoever opens one asks for a bounded number of them.
    """

    def __init__(self, process: _Process, id: int) -> None:
        self.id = id
        self._process = process
        self._answers: asyncio.Queue[dict[str, Any] | WorkerDied] = asyncio.Queue()

    async def read(self) -> dict[str, Any]:
        """The next answer. Raises WorkerDied, after the last answer that came."""
        answer = await self._answers.get()
        if isinstance(answer, WorkerDied):
            raise answer
        return answer

    def put(self, answer: dict[str, Any] | WorkerDied) -> None:
        self._answers.put_nowait(answer)

    def close(self) -> None:
        """Answers that still come are dropped."""
        self._process.exchanges.pop(self.id, None)


class WorkerProcess:
    """`python -m MODULE` as a worker. Not shared between event loops.

    Its standard error is the server's: workers keep their libraries silent, so what comes there is why one died.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._current: _Process | None = None
        self._processes: set[_Process] = set()
        self._starting = asyncio.Lock()
        self._last_id = 0

    @property
    def pid(self) -> int | None:
        """None where no worker is running."""
        return self._current.pid if self._current is not None and self._current.alive else None

    async def start(self) -> bool:
        """Starts a worker where none is running, and says whether it did. Raises WorkerDied."""
        async with self._starting:
            if self.pid is not None:
                return False
            process = _Process(self._module, self._processes)
            try:
                await process.spawn()
            except OSError as error:
                raise WorkerDied(f"{self._module} could not be started") from error
            self._current = process
            return True

    def open(self, message: dict[str, Any]) -> Exchange:
        """Sends a message without waiting, and listens for its answers. Raises WorkerDied where no worker runs."""
        if self._current is None or not self._current.alive:
            raise WorkerDied(f"{self._module} is not running")
        self._last_id += 1
        return self._current.open(self._last_id, message)

    async def ask(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """One message and its one answer, from a worker that runs.

        A worker that doesn't answer in time (TimeoutError), or whose asker is cancelled, is killed: it is busy with
        something that nobody wants any more. Raises WorkerDied too.
        """
        exchange = self.open(message)
        process = self._current
        try:
            async with asyncio.timeout(seconds):
                return await exchange.read()
        except (TimeoutError, asyncio.CancelledError):
            if process is not None:
                process.kill()
            raise
        finally:
            exchange.close()

    async def call(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """`ask`, after starting a worker where none is running."""
        await self.start()
        return await self.ask(message, seconds)

    def kill(self) -> None:
        """Ends the worker at once; whoever waits for it gets WorkerDied."""
        if self._current is not None:
            self._current.kill()

    async def close(self) -> None:
        """Kills the worker, and waits until it is reaped and its pipes are closed. It can be started again."""
        self.kill()
        for process in tuple(self._processes):
            await process.gone()


class _Process(asyncio.Protocol):
    """One process, from its start to the moment when it is reaped.

    Not asyncio's own subprocess: in Python 3.11 that waits for each child in a thread, or in a watcher that is
    global and bound to one loop. Here a pidfd becomes readable when the process ends.
    """

    def __init__(self, module: str, processes: set[_Process]) -> None:
        self.exchanges: dict[int, Exchange] = {}
        self.alive = False
        self.pid = 0
        self._module = module
        self._processes = processes
        self._received = bytearray()
        self._disconnected = False
        self._gone = asyncio.Event()

    async def spawn(self) -> None:
        """Raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._spawn(theirs)
            transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=ours)
            self._pipe: asyncio.Transport = transport
        except BaseException:
            ours.close()
            self._disconnected = True
            self.kill()
            raise

    def _spawn(self, theirs: socket.socket) -> None:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        paths = [_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            # -P: the folder that the server was started in must not be searched for modules.
            [sys.executable, "-P", "-m", self._module, str(os.getpid())],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            env={**environment, "PYTHONPATH": os.pathsep.join(paths)},
            process_group=0,
        )
        try:
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError:  # no descriptors left: what can't be watched must not live on
            self._process.kill()
            self._process.wait()
            raise
        self.pid = self._process.pid
        self.alive = True
        self._processes.add(self)
        asyncio.get_running_loop().add_reader(self._pidfd, self._exited)

    def open(self, id: int, message: dict[str, Any]) -> Exchange:
        self._pipe.write(pack({"id": id, **message}))
        exchange = self.exchanges[id] = Exchange(self, id)
        return exchange

    def kill(self) -> None:
        if self.alive:
            self.alive = False
            self._process.kill()

    async def gone(self) -> None:
        """Returns when the process is reaped, or can't be: the kernel may hold one back, on a disk that hangs."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SECONDS_TO_DIE):
                await self._gone.wait()

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        start = 0
        while len(received) - start >= LENGTH.size:
            (length,) = LENGTH.unpack_from(received, start)
            if length > MAX_MESSAGE:
                self.kill()
                return
            end = start + LENGTH.size + length
            if len(received) < end:
                break
            self._deliver(unpack(received[start + LENGTH.size : end]))
            start = end
        del received[:start]

    def _deliver(self, answer: dict[str, Any]) -> None:
        exchange = self.exchanges.get(answer["id"])
        if exchange is not None:
            exchange.put(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disconnected = True
        self.kill()  # a worker that can't be talked to is of no use
        self._settle()

    def _exited(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._process.wait()
        self.alive = False
        self._settle()

    def _settle(self) -> None:
        """Once the process is reaped and all that it sent is read, tells those who wait that nothing more comes."""
        code = self._process.returncode
        if code is None or not self._disconnected:
            return
        self._processes.discard(self)
        self._gone.set()
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        for exchange in self.exchanges.values():
            exchange.put(WorkerDied(f"{self._module} ended ({how})"))
