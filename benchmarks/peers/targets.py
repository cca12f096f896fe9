"""Peers as targets: find installed ones, start and address each, and turn their failures into notes."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks import processes
from benchmarks.harness import Harness
from benchmarks.peers.gateways import GATEWAYS, Gateway, GatewayInstance
from benchmarks.targets import OpenAITarget, PreparedRequest, RequestSpec

START_TIMEOUT = 90  # seconds: one gateway imports for 20 s on a shared core


class PeerTarget(OpenAITarget):
    """A target like the upstream, with headers of its own, and perhaps shorter streams."""

    def __init__(self, name: str, process: processes.ServerProcess, instance: GatewayInstance) -> None:
        super().__init__(name, process, instance.work_dir)
        self._gateway, self._headers = GATEWAYS[name], GATEWAYS[name].headers(instance)

    def prepare(self, spec: RequestSpec) -> PreparedRequest:
        request = super().prepare(shorten(spec, self._gateway))
        end = self._gateway.end if spec.chunks else request.end
        return replace(request, end=end, headers=self._headers)


@dataclass(frozen=True)
class PeerStart:
    """Starts a peer. Raises StartError."""

    name: str
    home: Path
    models: Sequence[str]

    def __call__(self, core: int, upstream: int, work_dir: Path) -> PeerTarget:
        gateway = GATEWAYS[self.name]
        instance = GatewayInstance(
            self.home, work_dir, processes.free_port(), f"http://127.0.0.1:{upstream}/v1", self.models
        )
        process = processes.ServerProcess(
            processes.module_command("launch", *gateway.command(instance)),
            core,
            work_dir / f"{self.name}.log",
            port=instance.port,
            variables=gateway.variables(instance),
            timeout=START_TIMEOUT,
        )
        try:
            wait_until_responding(instance.port)
        except BaseException:
            process.stop()
            raise
        return PeerTarget(self.name, process, instance)


@dataclass
class Peers:
    """`starts`: of installed peers. `notes`: on peers that are missing or have failed."""

    starts: dict[str, PeerStart] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def start_all(self, harness: Harness) -> list[str]:
        """Start all installed peers. Returns the names of those that run."""
        return [name for name in self.starts if self._try_start(harness, name)]

    def _try_start(self, harness: Harness, name: str) -> bool:
        try:
            harness.target(name)
        except processes.StartError as error:
            self.notes.append(f"{name} is not measured: {error}")
            return False
        return True

    def split_failures(self, failures: Sequence[str]) -> list[str]:
        """Turn the peers' failures into notes, and return the others: a failed peer is no failure of the benchmark."""
        peer_failures = [failure for failure in failures if failure.partition(", ")[0] in self.starts]
        self.notes += peer_failures
        return [failure for failure in failures if failure not in peer_failures]


def find_installed(folder: Path, specs: Sequence[RequestSpec]) -> Peers:
    """Find the peers that are installed in a folder."""
    peers = Peers()
    for name, gateway in GATEWAYS.items():
        home = folder.absolute() / name
        if not (home / gateway.program).exists():
            peers.notes.append(f"{name} is not measured: it could not be installed")
            continue
        models = sorted({model for spec in specs for model in (spec.model, shorten(spec, gateway).model)})
        peers.starts[name] = PeerStart(name, home, models)
        peers.versions[name] = gateway.version(home)
        if gateway.shorter_streams:
            replacements = ", ".join(f"{short} chunks for {long}" for long, short in gateway.shorter_streams.items())
            peers.notes.append(f"{name} is slow, and asked for shorter streams: {replacements}")
    return peers


def wait_until_responding(port: int) -> None:
    """Wait for any response: gunicorn accepts connections before its app is loaded. Raises StartError."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=START_TIMEOUT):
                return
        except urllib.error.HTTPError:
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise processes.StartError(f"it does not answer within {START_TIMEOUT} s: {error}") from error
        time.sleep(0.1)


def shorten(spec: RequestSpec, gateway: Gateway) -> RequestSpec:
    chunks = gateway.shorter_streams.get(spec.chunks, spec.chunks)
    return replace(spec, model=spec.model.replace(str(spec.chunks), str(chunks), 1), chunks=chunks)
