"""`python -m benchmarks.launch COMMAND`: execs a program that exits with its parent and prints to standard error.

Otherwise the program would outlive a benchmark that was killed, or block on a pipe that nobody reads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2); survives exec


def exit_with_parent() -> None:
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # the parent died before prctl
        sys.exit(1)


if __name__ == "__main__":
    exit_with_parent()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - no shell is wanted
