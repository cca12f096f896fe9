"""The child's side of a helper process: set limits, read requests from standard input, write responses to stdout."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from pipeline.workers.framing import LENGTH_PREFIX, pack, unpack

_PR_SET_PDEATHSIG = 1  # prctl(2)


class ParentPipes:
    """The two pipes to the parent process. Any thread may write."""

    def __init__(self, input_file: BinaryIO, output_file: BinaryIO) -> None:
        self._input = input_file
        self._output = output_file
        self._write_lock = threading.Lock()

    def read(self) -> dict[str, Any] | None:
        """The next message; None once the parent has closed its end."""
        head = self._input.read(LENGTH_PREFIX.size)
        if len(head) < LENGTH_PREFIX.size:
            return None
        (length,) = LENGTH_PREFIX.unpack(head)
        body = self._input.read(length)
        return unpack(body) if len(body) == length else None

    def write(self, message: dict[str, Any]) -> None:
        data = pack(message)
        with self._write_lock:
            self._output.write(data)
            self._output.flush()


def set_up_helper(memory: int | None = None) -> ParentPipes:
    """Make this process a helper that dies with its parent. `memory`: bytes of address space, None for no limit."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C signals the whole terminal; the parent decides what ends
    _die_with_parent(int(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would contain frames
    if memory is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    input_file, output_file = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not corrupt the messages
    return ParentPipes(input_file, output_file)


def serve(handle: Callable[[dict[str, Any]], dict[str, Any]], memory: int) -> None:
    """Handle one message after the other until the parent closes. Out of `memory` fails only the current message."""
    pipes = set_up_helper(memory)
    while (message := pipes.read()) is not None:
        try:
            response = handle(message)
        except MemoryError:
            response = {"error": "memory"}
        pipes.write({"id": message["id"], **response})


def _die_with_parent(parent_pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:  # the parent died before prctl
        sys.exit(1)
