"""`python -m benchmarks.launch COMMAND`: becomes that program, which then ends with whoever started it, and prints to
standard error. Else it would outlive a benchmark that was killed, or wait for somebody to read what it prints.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2); it holds on over exec


def end_with_parent() -> None:
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)


if __name__ == "__main__":
    end_with_parent()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - no shell is wanted
