"""The harness: the upstream and all targets, each started on first use and stopped with the benchmark."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks import forgeline, processes
from benchmarks.clients.base import MeasuredProcesses
from benchmarks.floors import nginx
from benchmarks.outcome import Outcome
from benchmarks.targets import OpenAITarget, RequestSpec, Target

CLIENT_TIMEOUT = 90  # seconds; a load client has shorter timeouts of its own

StartFunction = Callable[[int, int, Path], Target]
"""Starts a target: its core, the upstream's port, its folder. Raises StartError."""


class MeasureError(Exception):
    """A round failed, and gave no outcome."""


def _passthrough(core: int, upstream: int, work_dir: Path) -> OpenAITarget:
    command = processes.module_command("floors.passthrough", f"http://127.0.0.1:{upstream}")
    log = work_dir / "passthrough.log"
    process = processes.ServerProcess(command, core, log, variables=processes.MALLOC_SETTINGS)
    return OpenAITarget("passthrough", process, work_dir)


def _nginx(core: int, upstream: int, work_dir: Path) -> OpenAITarget:
    return OpenAITarget("nginx", nginx.start(core, upstream, work_dir), work_dir)


class Harness:
    """The running upstream, the targets by name, and the cores of target, upstream and load client."""

    def __init__(self, request_specs: Sequence[RequestSpec], peers: Mapping[str, StartFunction] | None = None) -> None:
        self.target_core, self.upstream_core, self.client_core = processes.cores()
        self._exit_stack = contextlib.ExitStack()
        self.work_dir = Path(self._exit_stack.enter_context(tempfile.TemporaryDirectory(prefix="forgeline-bench-")))
        self._start_functions: dict[str, StartFunction] = {
            "passthrough": _passthrough,
            "nginx": _nginx,
            "forgeline": lambda core, upstream, work_dir: forgeline.start(core, upstream, work_dir, request_specs),
            **(peers or {}),
        }
        self._targets: dict[str, Target] = {}
        command = processes.module_command("upstream")
        process = processes.ServerProcess(command, self.upstream_core, self.work_dir / "upstream.log")
        self._exit_stack.callback(process.stop)
        self.upstream = self._targets["upstream"] = OpenAITarget("upstream", process, self.work_dir)

    def close(self) -> None:
        self._exit_stack.close()

    def __enter__(self) -> Harness:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def target(self, name: str) -> Target:
        """Return a target, started if necessary. Raises StartError."""
        if name not in self._targets:
            target = self._targets[name] = self._start_target(name, name)
            self._exit_stack.callback(target.process.stop)
        return self._targets[name]

    def stop(self, name: str) -> None:
        """Stop a target, if it is running: its next use starts a fresh one."""
        if name in self._targets:
            self._targets.pop(name).process.stop()
            shutil.rmtree(self.work_dir / name)

    @contextlib.contextmanager
    def fresh_target(self, name: str) -> Iterator[Target]:
        """Start a target of its own, which stops with the block."""
        target = self._start_target(name, f"{name}-{os.urandom(4).hex()}")
        try:
            yield target
        finally:
            target.process.stop()

    def _start_target(self, name: str, folder: str) -> Target:
        work_dir = self.work_dir / folder
        work_dir.mkdir()
        return self._start_functions[name](self.target_core, self.upstream.process.port, work_dir)

    def measured_processes(self, pid: int) -> MeasuredProcesses:
        cores = sorted({self.target_core, self.upstream_core, self.client_core})
        return MeasuredProcesses(target=pid, upstream=self.upstream.process.pid, cores=cores)

    def run_client(self, module: str, plan: msgspec.Struct, *, core: int | None = None) -> Outcome:
        """Run a load client in a process of its own. Raises MeasureError."""
        variables = processes.MALLOC_SETTINGS | forgeline.aws_environment(self.upstream.process.port)
        with processes.pinned_to_core(self.client_core if core is None else core):
            process = subprocess.Popen(
                processes.module_command(module),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=processes.clean_environment() | variables,
            )
        try:
            stdout, stderr = process.communicate(msgspec.json.encode(plan), CLIENT_TIMEOUT)
        except subprocess.TimeoutExpired:
            stdout, stderr = b"", b"the load client hung"
        finally:
            process.kill()
            process.wait()
        if not stdout:
            raise MeasureError(stderr.decode(errors="replace").strip())
        return msgspec.json.decode(stdout, type=Outcome)
