"""`python -m benchmarks.soak`: mixed load for ten minutes; then, whether memory was flat and everything came back."""

import argparse
import asyncio
import socket
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks import processes
from benchmarks.soak.client import SoakFailure
from benchmarks.soak.phases import run_soak
from benchmarks.soak.process import write_presets

MAX_SECONDS = 800  # the mock upstream exits after a limit of its own


def main() -> int:
    seconds = parse_arguments().seconds
    with ExitStack() as exit_stack:
        work_dir = Path(exit_stack.enter_context(tempfile.TemporaryDirectory(prefix="forgeline-soak-")))
        command = processes.module_command("upstream")
        upstream = processes.ServerProcess(command, max(processes.cores()), work_dir / "upstream.log")
        exit_stack.callback(upstream.stop)
        closed_socket = exit_stack.enter_context(socket.socket())  # bound, but not listening
        closed_socket.bind(("127.0.0.1", 0))
        write_presets(work_dir / "presets", upstream.port, closed_socket.getsockname()[1])
        try:
            failures = asyncio.run(run_soak(work_dir, seconds))
        except* (processes.StartError, SoakFailure) as group:
            failures = [str(error) for error in leaves(group)]
    for failure in failures:
        print(f"! {failure}")
    return 1 if failures else 0


def leaves(error: BaseException) -> list[BaseException]:
    """The errors of an exception group and of nested groups."""
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return [leaf for child in inner for leaf in leaves(child)] or [error]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help=f"of load, up to {MAX_SECONDS} (default: 600)")
    options = parser.parse_args()
    if not 1 <= options.seconds <= MAX_SECONDS:
        parser.error(f"--seconds: from 1 to {MAX_SECONDS}")
    return options


if __name__ == "__main__":
    sys.exit(main())
