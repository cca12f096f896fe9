"""One run of a command: its server and output, its signals, and its exit code."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from server.client.api import ApiClient
from server.client.errors import BROKEN_PIPE, INTERRUPTED, ClientError, UsageError
from server.client.output import Output
from server.client.reconnect import ReconnectPolicy

CommandFunction = Callable[[ApiClient, Output, ReconnectPolicy], Awaitable[int]]
"""The body of a command. Returns its exit code."""


class TerminatedBySignal(Exception):
    """SIGTERM or SIGHUP arrived, and the command has cleaned up."""

    def __init__(self, number: int) -> None:
        self.number = number


class CommandSession:
    def __init__(self, server: str, key: str | None, key_file: Path | None, *, json: bool, reconnect: float) -> None:
        self.output = Output(json)
        self._server = server
        self._key = key
        self._key_file = key_file
        self._max_outage = reconnect

    def run_with_exit_code(self, call: Callable[[], int]) -> int:
        """Call a function, print its error if it raises one, and return the exit code of the process."""
        try:
            return call()
        except BrokenPipeError:
            self.output.silence_stdout()
            return BROKEN_PIPE
        except ClientError as error:
            self.output.print_error(error)
            return error.exit_code
        except KeyboardInterrupt:
            return INTERRUPTED
        except TerminatedBySignal as error:
            return 128 + error.number

    def run(self, command: CommandFunction) -> int:
        """Run a command in an event loop of its own. Raises ClientError."""
        return asyncio.run(self._run(command))

    async def _run(self, command: CommandFunction) -> int:
        task = asyncio.current_task()
        received: list[int] = []

        def cancel_task(number: int) -> None:
            received.append(number)
            if task is not None:
                task.cancel()

        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP
                asyncio.get_running_loop().add_signal_handler(number, cancel_task, number)
        try:
            async with ApiClient(self._server, self._read_key()) as api:
                return await command(api, self.output, ReconnectPolicy(self._max_outage, self.output.print_message))
        except asyncio.CancelledError:
            if received:
                raise TerminatedBySignal(received[0]) from None
            raise

    def _read_key(self) -> str | None:
        if self._key_file is None:
            return self._key
        try:
            return self._key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--key-file {self._key_file} can't be read.") from error
