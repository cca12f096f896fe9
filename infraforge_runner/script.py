"""A script at work: its environment, its output on its way into the log, and the end of all that it has started."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from infraforge_runner.mask import Masker
from infraforge_runner.processes import GIVE_UP_AFTER, descendants, group_of, send
from pipeline.silence import SilenceTimer

KILL_AFTER = 5.0  # seconds between the request to end and the order
LAST_OUTPUT = 1.0  # seconds for the output of what has ended to be read
HELPER_IS_WAITED_FOR = 0.02  # seconds in which whoever started a helper has noticed its end
RELEASE_AFTER = 0.2  # seconds of silence after which the masker gives up what is hardly a secret
READ_SIZE = 65_536

_KEPT = ("PATH", "HOME", "LANG", "LANGUAGE")
_KEPT_PREFIXES = ("LC_", "AWS_")
SECRET_NAMES = ("KEY", "SECRET", "TOKEN", "PASSWORD")


def inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """What a job gets of the server's environment: AWS's credentials and settings, PATH, HOME and the locale."""
    return {name: value for name, value in environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}


def secrets_in(environment: Mapping[str, str]) -> list[bytes]:
    """The values of variables that are named like secrets."""
    return [
        value.encode("utf-8", "surrogateescape")
        for name, value in environment.items()
        if any(part in name.upper() for part in SECRET_NAMES)
    ]


def argv_of(script: Path) -> list[str]:
    """How to run a script: by its own first line, or by bash where it has none."""
    with script.open("rb") as file:
        return [str(script)] if file.read(2) == b"#!" else ["bash", str(script)]


class Script:
    """One command of a job, from its start to the moment when nothing is left of it.

    `log` is a descriptor that takes the masked output. `on_trouble` hears of an output that can't be written.
    One at a time: a child of this process is the script, or what that has left behind. Only in this process's own
    group are helpers: the SDK runs a profile's `credential_process` there, and waits for it itself.
    """

    def __init__(self, log: int, secrets: Sequence[bytes], on_trouble: Callable[[OSError], None]) -> None:
        self._log = log
        self._masker = Masker(secrets)
        self._on_trouble = on_trouble
        self.on_output: Callable[[bytes], object] = lambda data: None  # what was written, as it came
        self._loop = asyncio.get_running_loop()
        self._silence = SilenceTimer(RELEASE_AFTER, self._release)
        self._childless = asyncio.Event()
        self._output_ended = asyncio.Event()

    def start(self, argv: Sequence[str], cwd: Path, environment: Mapping[str, str], mark: int) -> None:
        """`mark` is a descriptor that the script and all that it starts have open. Raises OSError."""
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self._childless.clear()
        self._output_ended.clear()
        self._spares_helpers = True
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)
        ours, theirs = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - a preset's script, or ours
                argv,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=theirs,
                pass_fds=(mark,),
                process_group=0,
            )
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._output = ours
        os.set_blocking(ours, False)
        self._loop.add_reader(ours, self._readable)
        self._silence.__enter__()

    async def end(self) -> None:
        """Asks what is left to end, orders it a while later, and returns when nothing is left.

        Raises TimeoutError where something can't be ended: it is another user's, or the kernel holds it back.
        """
        self._reap()
        if not self._childless.is_set():
            # Once each: many a tool takes the second request for an order, and leaves its work where it is.
            group = self._process.pid
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGTERM)
            self._signal_all(signal.SIGTERM, but={group, os.getpgrp()})
            with suppress(TimeoutError):
                async with asyncio.timeout(KILL_AFTER):
                    await self._childless.wait()
        self._spares_helpers = False
        try:
            async with asyncio.timeout(GIVE_UP_AFTER):
                while not self._childless.is_set():
                    self._signal_all(signal.SIGKILL)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.05):  # what was forked behind our back is found at the next look
                            await self._childless.wait()
                    self._reap()
        finally:
            self._loop.remove_signal_handler(signal.SIGCHLD)
            await self._close_output()

    def say(self, text: str) -> None:
        """A line of the supervisor's own, among the output."""
        self._write(self._masker.feed(f"{text}\n".encode()))

    # --- output ------------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            data = os.read(self._output, READ_SIZE)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._output)
            self._output_ended.set()
            return
        self._write(self._masker.feed(data))
        self._silence.heard()
        self.on_output(data)

    def _release(self) -> None:
        if self._masker.holds:
            self._write(self._masker.release())

    async def _close_output(self) -> None:
        """Reads what those that have ended have written; one that could not be ended may hold its end open."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_OUTPUT):
                await self._output_ended.wait()
        self._loop.remove_reader(self._output)
        self._silence.__exit__()
        os.close(self._output)
        self._write(self._masker.finish())

    def _write(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._log, data) :]
        except OSError as error:
            self._on_trouble(error)

    # --- children ----------------------------------------------------------------------------------

    def _signal_all(self, number: signal.Signals, but: Container[int] = ()) -> None:
        """To all but the members of these groups."""
        for pid in descendants(os.getpid()):
            if group_of(pid) not in but:
                send(pid, number)

    def _reap(self) -> None:
        """Every descendant becomes a child of this process in the end, and is waited for here."""
        try:
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if self._spares_helpers and group_of(ended.si_pid) in (os.getpgrp(), None):
                    self._loop.call_later(HELPER_IS_WAITED_FOR, self._reap)
                    return
                self._wait_for(ended.si_pid)
        except ChildProcessError:
            self._childless.set()

    def _wait_for(self, pid: int) -> None:
        with suppress(ChildProcessError):  # a helper, whose end somebody else has seen first
            _, status = os.waitpid(pid, 0)
            if pid == self._process.pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)  # so that it does not wait itself
                self.exited.set_result(self._process.returncode)
