"""A script that runs: its environment, its masked output into the log, and the end of all processes it started."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from infraforge_runner.jobs.process_tree import GIVE_UP_SECONDS, descendants, process_group, send_signal
from pipeline.events.idle_timer import IdleTimer
from pipeline.masking import Masker, is_secret_variable

KILL_AFTER_SECONDS = 5.0  # between SIGTERM and SIGKILL
LAST_OUTPUT_SECONDS = 1.0  # to read what ended processes have written
HELPER_REAP_SECONDS = 0.02  # in which the library that started a helper has waited for it
RELEASE_SECONDS = 0.2  # without output after which the masker releases what it holds back
READ_BYTES = 65_536

_INHERITED = ("PATH", "HOME", "LANG", "LANGUAGE")
_INHERITED_PREFIXES = ("LC_", "AWS_")


def inherited_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of the server's environment that a job gets: AWS's variables, PATH, HOME and the locale."""
    return {
        name: value for name, value in environ.items() if name in _INHERITED or name.startswith(_INHERITED_PREFIXES)
    }


def secret_values(environment: Mapping[str, str]) -> list[bytes]:
    """The values of variables whose names look like secrets."""
    return [value.encode("utf-8", "surrogateescape") for name, value in environment.items() if is_secret_variable(name)]


def script_argv(script: Path) -> list[str]:
    """The command of a script: its own interpreter line is used; bash where it has none. Raises OSError."""
    with script.open("rb") as file:
        return [str(script)] if file.read(2) == b"#!" else ["bash", str(script)]


class Script:
    """One command of a job, from its start until none of its processes is left.

    `log` is a descriptor that takes the masked output. `on_write_error` is called when output can't be written.
    One at a time: a child of this process is the script, or what that has left behind. Only in this process's own
    group are helpers: the SDK runs a profile's `credential_process` there, and waits for it itself.
    """

    def __init__(self, log: int, secrets: Sequence[bytes], on_write_error: Callable[[OSError], None]) -> None:
        self._log = log
        self._masker = Masker(secrets)
        self._on_write_error = on_write_error
        self.on_output: Callable[[bytes], object] = lambda data: None  # gets the output, not masked
        self._loop = asyncio.get_running_loop()
        self._idle_timer = IdleTimer(RELEASE_SECONDS, self._release_held_output)
        self._no_children = asyncio.Event()
        self._output_ended = asyncio.Event()

    def start(self, argv: Sequence[str], cwd: Path, environment: Mapping[str, str], mark: int) -> None:
        """Start it. `mark` is a descriptor that the script and its processes inherit. Raises OSError."""
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self._no_children.clear()
        self._output_ended.clear()
        self._ignore_helpers = True
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)
        read_end, write_end = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - a preset's script, or ours
                argv,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                pass_fds=(mark,),
                process_group=0,
            )
        except OSError:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        self._output = read_end
        os.set_blocking(read_end, False)
        self._loop.add_reader(read_end, self._on_readable)
        self._idle_timer.__enter__()

    async def terminate(self) -> None:
        """Send SIGTERM to what is left, SIGKILL a while later, and return when nothing is left.

        Raises TimeoutError where a process can't be ended: it is another user's, or the kernel does not end it.
        """
        self._reap()
        if not self._no_children.is_set():
            # Once each: many tools exit at a second SIGTERM without cleaning up.
            group = self._process.pid
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGTERM)
            self._signal_all(signal.SIGTERM, except_groups={group, os.getpgrp()})
            with suppress(TimeoutError):
                async with asyncio.timeout(KILL_AFTER_SECONDS):
                    await self._no_children.wait()
        self._ignore_helpers = False
        try:
            async with asyncio.timeout(GIVE_UP_SECONDS):
                while not self._no_children.is_set():
                    self._signal_all(signal.SIGKILL)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.05):  # then scan for newly forked processes
                            await self._no_children.wait()
                    self._reap()
        finally:
            self._loop.remove_signal_handler(signal.SIGCHLD)
            await self._close_output()

    def write_line(self, text: str) -> None:
        """Write a line of the supervisor's own into the log."""
        self._write(self._masker.feed(f"{text}\n".encode()))

    # --- output ------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        try:
            data = os.read(self._output, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._output)
            self._output_ended.set()
            return
        self._write(self._masker.feed(data))
        self._idle_timer.reset()
        self.on_output(data)

    def _release_held_output(self) -> None:
        if self._masker.holds:
            self._write(self._masker.release())

    async def _close_output(self) -> None:
        """Read what is left in the pipe; a process that could not be ended may hold it open."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_OUTPUT_SECONDS):
                await self._output_ended.wait()
        self._loop.remove_reader(self._output)
        self._idle_timer.__exit__()
        os.close(self._output)
        self._write(self._masker.finish())

    def _write(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._log, data) :]
        except OSError as error:
            self._on_write_error(error)

    # --- children ----------------------------------------------------------------------------------

    def _signal_all(self, number: signal.Signals, except_groups: Container[int] = ()) -> None:
        """Send a signal to all descendants that are in none of these process groups."""
        for pid in descendants(os.getpid()):
            if process_group(pid) not in except_groups:
                send_signal(pid, number)

    def _reap(self) -> None:
        """Wait for children that have ended: every descendant becomes a child of this process in the end."""
        try:
            while child := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if self._ignore_helpers and process_group(child.si_pid) in (os.getpgrp(), None):
                    self._loop.call_later(HELPER_REAP_SECONDS, self._reap)
                    return
                self._wait_for_child(child.si_pid)
        except ChildProcessError:
            self._no_children.set()

    def _wait_for_child(self, pid: int) -> None:
        with suppress(ChildProcessError):  # a helper that the SDK has waited for first
            _, status = os.waitpid(pid, 0)
            if pid == self._process.pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)  # so that Popen does not wait for it again
                self.exited.set_result(self._process.returncode)
