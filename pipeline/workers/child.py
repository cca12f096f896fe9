"""A worker's own side: limits first, then maps come in on standard input and answers go out on standard output."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from pipeline.workers.wire import LENGTH, pack, unpack

_PR_SET_PDEATHSIG = 1  # prctl(2)


class Pipes:
    """The two pipes to the parent. Any thread may write."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source = source
        self._sink = sink
        self._writing = threading.Lock()

    def read(self) -> dict[str, Any] | None:
        """The next message; None when the parent has closed its end."""
        head = self._source.read(LENGTH.size)
        if len(head) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack(head)
        body = self._source.read(length)
        return unpack(body) if len(body) == length else None

    def write(self, message: dict[str, Any]) -> None:
        data = pack(message)
        with self._writing:
            self._sink.write(data)
            self._sink.flush()


def enter(memory: int | None = None) -> Pipes:
    """Makes this process a worker that ends with its parent. `memory`: bytes of address space, None for no limit."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the parent decides what ends
    _end_with_parent(int(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold frames
    if memory is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get among the messages
    return Pipes(source, sink)


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]], memory: int) -> None:
    """Answers one message after the other, until the parent closes. Running out of `memory` costs that message only."""
    pipes = enter(memory)
    while (message := pipes.read()) is not None:
        try:
            answered = answer(message)
        except MemoryError:
            answered = {"error": "memory"}
        pipes.write({"id": message["id"], **answered})


def _end_with_parent(parent: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)
