"""What is measured and what it needs, each started when it is first asked for, and ended with the benchmark."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks import proc, product
from benchmarks.clients.base import Watched
from benchmarks.floors import nginx
from benchmarks.outcome import Outcome
from benchmarks.targets import OpenAI, Question, Target

LONGEST = 90  # seconds for one run of a load client, which has its own, shorter bounds

Start = Callable[[int, int, Path], Target]
"""Starts a target: on which core, before which port of an upstream, and with which folder. Raises StartFailed."""


class MeasureFailed(Exception):
    """Why there is no figure."""


def _passthrough(core: int, upstream: int, work: Path) -> OpenAI:
    command = proc.module("floors.passthrough", f"http://127.0.0.1:{upstream}")
    log = work / "passthrough.log"
    return OpenAI("passthrough", proc.Served(command, core, log, variables=proc.KEEPS_MEMORY), work)


def _nginx(core: int, upstream: int, work: Path) -> OpenAI:
    return OpenAI("nginx", nginx.start(core, upstream, work), work)


class World:
    """`measured`, `loading` and `asking` are the cores of what is measured, of the upstream and of the client."""

    def __init__(self, questions: Sequence[Question], peers: Mapping[str, Start] | None = None) -> None:
        self.measured, self.loading, self.asking = proc.cores()
        self._ends = contextlib.ExitStack()
        self.work = Path(self._ends.enter_context(tempfile.TemporaryDirectory(prefix="forgeline-bench-")))
        self._starts: dict[str, Start] = {
            "passthrough": _passthrough,
            "nginx": _nginx,
            "forgeline": lambda core, upstream, work: product.start(core, upstream, work, questions),
            **(peers or {}),
        }
        self._targets: dict[str, Target] = {}
        served = proc.Served(proc.module("upstream"), self.loading, self.work / "upstream.log")
        self._ends.callback(served.end)
        self.upstream = self._targets["upstream"] = OpenAI("upstream", served, self.work)

    def close(self) -> None:
        self._ends.close()

    def __enter__(self) -> World:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def target(self, name: str) -> Target:
        """Raises StartFailed."""
        if name not in self._targets:
            target = self._targets[name] = self._start(name, name)
            self._ends.callback(target.served.end)
        return self._targets[name]

    def end(self, name: str) -> None:
        """Ends a target, if it runs; who asks for it next gets one that has done nothing yet."""
        if name in self._targets:
            self._targets.pop(name).served.end()
            shutil.rmtree(self.work / name)

    @contextlib.contextmanager
    def fresh(self, name: str) -> Iterator[Target]:
        """One that has done nothing yet, which ends with the block."""
        target = self._start(name, f"{name}-{os.urandom(4).hex()}")
        try:
            yield target
        finally:
            target.served.end()

    def _start(self, name: str, folder: str) -> Target:
        work = self.work / folder
        work.mkdir()
        return self._starts[name](self.measured, self.upstream.served.port, work)

    def watched(self, pid: int) -> Watched:
        cores = sorted({self.measured, self.loading, self.asking})
        return Watched(measured=pid, upstream=self.upstream.served.pid, cores=cores)

    def client(self, module: str, plan: msgspec.Struct, *, core: int | None = None) -> Outcome:
        """Runs a load client in a process of its own. Raises MeasureFailed."""
        with proc.on_core(self.asking if core is None else core):
            process = subprocess.Popen(
                proc.module(module),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=proc.environment() | proc.KEEPS_MEMORY | product.aws_environment(self.upstream.served.port),
            )
        try:
            said, why = process.communicate(msgspec.json.encode(plan), LONGEST)
        except subprocess.TimeoutExpired:
            said, why = b"", b"the load client hung"
        finally:
            process.kill()
            process.wait()
        if not said:
            raise MeasureFailed(why.decode(errors="replace").strip())
        return msgspec.json.decode(said, type=Outcome)
