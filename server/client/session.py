"""One command's run: its server and output, and the exit code that its end becomes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from server.client.api import Api
from server.client.errors import BROKEN_PIPE, INTERRUPTED, ClientError, Misused
from server.client.following import Patience
from server.client.output import Output

Work = Callable[[Api, Output, Patience], Awaitable[int]]
"""What a command does. Returns its exit code."""


class Terminated(Exception):
    """A signal asked for the end, and what had to be cleared away is."""

    def __init__(self, number: int) -> None:
        self.number = number


class Session:
    def __init__(self, server: str, key: str | None, key_file: Path | None, *, json: bool, reconnect: float) -> None:
        self.output = Output(json)
        self._server = server
        self._key = key
        self._key_file = key_file
        self._reconnect = reconnect

    def perform(self, work: Work) -> int:
        """Does the work, tells its error if it has one, and gives the exit code."""
        return self.guard(lambda: self.run(work))

    def guard(self, call: Callable[[], int]) -> int:
        try:
            return self._hushed(call)
        except ClientError as error:
            self.output.fail(error)
            return error.exit_code
        except KeyboardInterrupt:
            return INTERRUPTED
        except Terminated as error:
            return 128 + error.number

    def run(self, work: Work) -> int:
        """Raises ClientError."""
        return asyncio.run(self._run(work))

    def _hushed(self, call: Callable[[], int]) -> int:
        try:
            return call()
        except BrokenPipeError:
            self.output.hush()
            return BROKEN_PIPE

    async def _run(self, work: Work) -> int:
        task = asyncio.current_task()
        received: list[int] = []

        def end(number: int) -> None:
            received.append(number)
            if task is not None:
                task.cancel()

        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores one
                asyncio.get_running_loop().add_signal_handler(number, end, number)
        try:
            async with Api(self._server, self._api_key()) as api:
                return await work(api, self.output, Patience(self._reconnect, self.output.say))
        except asyncio.CancelledError:
            if received:
                raise Terminated(received[0]) from None
            raise

    def _api_key(self) -> str | None:
        if self._key_file is None:
            return self._key
        try:
            return self._key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise Misused(f"--key-file {self._key_file} can't be read.") from error
