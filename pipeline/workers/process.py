"""The parent's side of a helper process: start it, exchange messages with it, kill it, notice its death.

The process is started by exec at its first message. Its death fails every exchange with it, and the next message
starts a new process. The child's side of the pipes is in `child.py`.
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

from pipeline.workers.framing import LENGTH_PREFIX, MAX_MESSAGE_BYTES, pack, unpack

REAP_TIMEOUT_SECONDS = 5.0

# Nothing else is inherited: a process that decodes untrusted files must not see the server's keys and credentials.
_INHERITED_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH")
_REPOSITORY_ROOT = str(Path(__file__).resolve().parents[2])


class HelperDied(Exception):
    """The helper process ended or was killed before it responded. The message says how."""


class Exchange:
    """One message to a helper process, and the responses that carry its id.

    Responses are queued until they are read, without a limit: a message must not cause an unbounded number of them.
    """

    def __init__(self, process: _ChildProcess, id: int) -> None:
        self.id = id
        self._process = process
        self._responses: asyncio.Queue[dict[str, Any] | HelperDied] = asyncio.Queue()

    async def read(self) -> dict[str, Any]:
        """The next response. Raises HelperDied after the last one that arrived."""
        response = await self._responses.get()
        if isinstance(response, HelperDied):
            raise response
        return response

    def deliver(self, response: dict[str, Any] | HelperDied) -> None:
        self._responses.put_nowait(response)

    def close(self) -> None:
        """Drop all further responses."""
        self._process.exchanges.pop(self.id, None)


class HelperProcess:
    """`python -m MODULE` as a helper process. Belongs to one event loop.

    Its standard error is the server's. Helpers keep their libraries silent, so only the cause of a crash appears there.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._current: _ChildProcess | None = None
        self._processes: set[_ChildProcess] = set()
        self._starting = asyncio.Lock()
        self._last_id = 0

    @property
    def pid(self) -> int | None:
        """None while no process is running."""
        return self._current.pid if self._current is not None and self._current.is_alive else None

    async def start(self) -> bool:
        """Start a process if none is running. Returns whether it started one. Raises HelperDied."""
        async with self._starting:
            if self.pid is not None:
                return False
            process = _ChildProcess(self._module, self._processes)
            try:
                await process.start()
            except OSError as error:
                raise HelperDied(f"{self._module} could not be started") from error
            self._current = process
            return True

    def start_exchange(self, message: dict[str, Any]) -> Exchange:
        """Send a message without waiting for a response. Raises HelperDied if no process is running."""
        if self._current is None or not self._current.is_alive:
            raise HelperDied(f"{self._module} is not running")
        self._last_id += 1
        return self._current.start_exchange(self._last_id, message)

    async def request(self, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Send one message to the running process and return its response.

        Kills the process on timeout (TimeoutError) and on cancellation: its work is not needed any more.
        Raises HelperDied if it ends before it responds.
        """
        exchange = self.start_exchange(message)
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
        """Start a process if none is running, then `request`."""
        await self.start()
        return await self.request(message, seconds)

    def kill(self) -> None:
        """Kill the process now; all open exchanges raise HelperDied."""
        if self._current is not None:
            self._current.kill()

    async def close(self) -> None:
        """Kill the process and wait until it is reaped and its pipes are closed. It can be started again."""
        self.kill()
        for process in tuple(self._processes):
            await process.wait_reaped()


class _ChildProcess(asyncio.Protocol):
    """One process from its start until it is reaped.

    Not asyncio's own subprocess: in Python 3.11 it waits for each child in a thread, or in a global watcher that
    is bound to one loop. Here a pidfd becomes readable when the process ends.
    """

    def __init__(self, module: str, processes: set[_ChildProcess]) -> None:
        self.exchanges: dict[int, Exchange] = {}
        self.is_alive = False
        self.pid = 0
        self._module = module
        self._processes = processes
        self._received = bytearray()
        self._disconnected = False
        self._reaped = asyncio.Event()

    async def start(self) -> None:
        """Raises OSError."""
        parent_socket, child_socket = socket.socketpair()
        try:
            with child_socket:
                self._spawn_process(child_socket)
            transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=parent_socket)
            self._transport: asyncio.Transport = transport
        except BaseException:
            parent_socket.close()
            self._disconnected = True
            self.kill()
            raise

    def _spawn_process(self, child_socket: socket.socket) -> None:
        environment = {name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ}
        paths = [_REPOSITORY_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            # -P: do not import modules from the server's working directory.
            [sys.executable, "-P", "-m", self._module, str(os.getpid())],
            stdin=child_socket.fileno(),
            stdout=child_socket.fileno(),
            env={**environment, "PYTHONPATH": os.pathsep.join(paths)},
            process_group=0,
        )
        try:
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError:  # out of descriptors: a process that can't be watched must not live on
            self._process.kill()
            self._process.wait()
            raise
        self.pid = self._process.pid
        self.is_alive = True
        self._processes.add(self)
        asyncio.get_running_loop().add_reader(self._pidfd, self._on_exit)

    def start_exchange(self, id: int, message: dict[str, Any]) -> Exchange:
        self._transport.write(pack({"id": id, **message}))
        exchange = self.exchanges[id] = Exchange(self, id)
        return exchange

    def kill(self) -> None:
        if self.is_alive:
            self.is_alive = False
            self._process.kill()

    async def wait_reaped(self) -> None:
        """Wait until the process is reaped, with a timeout: the kernel can't kill a process that hangs in disk I/O."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REAP_TIMEOUT_SECONDS):
                await self._reaped.wait()

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        start = 0
        while len(received) - start >= LENGTH_PREFIX.size:
            (length,) = LENGTH_PREFIX.unpack_from(received, start)
            if length > MAX_MESSAGE_BYTES:
                self.kill()
                return
            end = start + LENGTH_PREFIX.size + length
            if len(received) < end:
                break
            self._deliver(unpack(received[start + LENGTH_PREFIX.size : end]))
            start = end
        del received[:start]

    def _deliver(self, response: dict[str, Any]) -> None:
        exchange = self.exchanges.get(response["id"])
        if exchange is not None:
            exchange.deliver(response)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disconnected = True
        self.kill()  # without its pipes the process is of no use
        self._fail_exchanges_after_exit()

    def _on_exit(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._process.wait()
        self.is_alive = False
        self._fail_exchanges_after_exit()

    def _fail_exchanges_after_exit(self) -> None:
        """Fail the open exchanges once the process is reaped and everything it sent has been read."""
        code = self._process.returncode
        if code is None or not self._disconnected:
            return
        self._processes.discard(self)
        self._reaped.set()
        status = f"signal {-code}" if code < 0 else f"exit status {code}"
        for exchange in self.exchanges.values():
            exchange.deliver(HelperDied(f"{self._module} ended ({status})"))
