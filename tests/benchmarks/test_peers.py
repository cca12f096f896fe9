"""Other gateways in the benchmark: which take part, how each is configured, what is only a note."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.clients import http1
from benchmarks.harness import Harness
from benchmarks.peers.gateways import GATEWAYS, PLACEHOLDER_KEY, GatewayInstance
from benchmarks.peers.targets import Peers, find_installed, shorten
from benchmarks.scenarios import BURST, PACED, PLAIN, UNBATCHED
from benchmarks.targets import RequestSpec

PARENT_SCRIPT = """
import subprocess, sys
command = [sys.executable, "-m", "benchmarks.launch", "sh", "-c", "echo it runs; exec sleep 60"]
print(subprocess.Popen(command).pid, flush=True)
sys.stdin.read()
"""


def install(folder: Path, name: str, program: str) -> None:
    path = folder / name / GATEWAYS[name].program
    path.parent.mkdir(parents=True)
    path.write_text(program)
    path.chmod(0o755)
    version = folder / name / "lib" / "python3.11" / "site-packages" / f"{GATEWAYS[name].package}-1.2.3.dist-info"
    version.mkdir(parents=True)
    (version / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {GATEWAYS[name].package}\nVersion: 1.2.3\n")


def test_peers_missing_gateway_adds_note(tmp_path: Path) -> None:
    peers = find_installed(tmp_path, [PLAIN])
    assert not peers.starts
    assert peers.notes == [f"{name} is not measured: it could not be installed" for name in GATEWAYS]


def test_peers_installed_gateway_has_start_and_version(tmp_path: Path) -> None:
    install(tmp_path, "mlflow", "")
    peers = find_installed(tmp_path, [PLAIN])
    assert list(peers.starts) == ["mlflow"]
    assert peers.versions == {"mlflow": "1.2.3"}


def test_peers_failed_start_adds_note_with_log_tail(tmp_path: Path) -> None:
    install(tmp_path, "litellm", "#!/bin/sh\necho no licence\nexit 3\n")
    peers = find_installed(tmp_path, [PLAIN])
    with Harness([PLAIN], peers.starts) as harness:
        assert peers.start_all(harness) == []
    assert peers.notes[-1].startswith("litellm is not measured: ")
    assert "no licence" in peers.notes[-1]


def test_peers_split_failures_turns_only_peer_failures_into_notes(tmp_path: Path) -> None:
    install(tmp_path, "mlflow", "")
    peers = find_installed(tmp_path, [PLAIN])
    failures = ["mlflow, 1 stream: the load client hung", "forgeline, 1 stream: status 500"]
    assert peers.split_failures(failures) == ["forgeline, 1 stream: status 500"]
    assert "mlflow, 1 stream: the load client hung" in peers.notes
    assert Peers().split_failures(failures) == failures


@pytest.mark.parametrize(
    ("spec", "model", "chunks"),
    [(BURST, "burst-200", 200), (UNBATCHED, "burst-200-by-1", 200), (PACED, "paced-10-20ms", 10), (PLAIN, "plain", 0)],
)
def test_peers_slow_gateway_gets_shorter_streams(spec: RequestSpec, model: str, chunks: int) -> None:
    shortened = shorten(spec, GATEWAYS["litellm"])
    assert (shortened.model, shortened.chunks) == (model, chunks)
    assert shorten(spec, GATEWAYS["mlflow"]) == spec


@pytest.mark.parametrize("name", GATEWAYS)
def test_gateway_command_contains_port_upstream_and_key(tmp_path: Path, name: str) -> None:
    gateway, instance = GATEWAYS[name], GatewayInstance(tmp_path, tmp_path, 4000, "http://127.0.0.1:5000/v1", ["plain"])
    command = gateway.command(instance)
    configuration = str([command, gateway.variables(instance), gateway.headers(instance)])
    configuration += "".join(path.read_text() for path in tmp_path.iterdir())
    assert "4000" in str(command)
    assert "http://127.0.0.1:5000/v1" in configuration
    assert PLACEHOLDER_KEY in configuration


def test_build_request_extra_headers_are_sent() -> None:
    request = http1.build_request(80, "/v1", b"{}", "text/event-stream", {"x-portkey-provider": "openai"})
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.endswith(b"\r\nx-portkey-provider: openai")
    assert body == b"{}"


def test_launch_killed_parent_ends_program_and_output_goes_to_stderr() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", PARENT_SCRIPT], **pipes) as parent:  # type: ignore[call-overload]
        program = os.pidfd_open(int(parent.stdout.readline()))
        assert parent.stderr.readline() == b"it runs\n"
        parent.send_signal(signal.SIGKILL)
        ended, _, _ = select.select([program], [], [], 20)
        assert ended == [program]
        os.close(program)
