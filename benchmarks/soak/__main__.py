"""`python -m benchmarks.soak`: mixed load for ten minutes; then, whether memory was flat and everything came back."""

import argparse
import asyncio
import socket
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import proc
from benchmarks.soak.client import Wrong
from benchmarks.soak.process import write_presets
from benchmarks.soak.run import soak

LONGEST = 800  # seconds: the mock upstream ends by itself after 900


def main() -> int:
    seconds = arguments().seconds
    with ExitStack() as ends:
        work = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="forgeline-soak-")))
        upstream = proc.Served(proc.module("upstream"), max(proc.cores()), work / "upstream.log")
        ends.callback(upstream.end)
        nobody = ends.enter_context(socket.socket())  # has its port, and does not listen on it
        nobody.bind(("127.0.0.1", 0))
        write_presets(work / "presets", upstream.port, nobody.getsockname()[1])
        try:
            faults = asyncio.run(soak(work, seconds))
        except* (proc.StartFailed, Wrong) as group:
            faults = [str(error) for error in leaves(group)]
    for fault in faults:
        print(f"! {fault}")
    return 1 if faults else 0


def leaves(error: BaseException) -> list[BaseException]:
    """The errors of a group, and of the groups in it."""
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return [leaf for one in inner for leaf in leaves(one)] or [error]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help=f"of load, up to {LONGEST} (default: 600)")
    options = parser.parse_args()
    if not 1 <= options.seconds <= LONGEST:
        parser.error(f"--seconds: from 1 to {LONGEST}")
    return options


if __name__ == "__main__":
    sys.exit(main())
