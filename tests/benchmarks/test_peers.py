"""Gateways beside Forgeline in the benchmark: which take part, how each is asked, what is only a note."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.clients import http1
from benchmarks.peers.gateways import GATEWAYS, KEY, Place
from benchmarks.peers.targets import Peers, find, shorter
from benchmarks.scenarios import BURST, PACED, PLAIN, SINGLY
from benchmarks.targets import Question
from benchmarks.world import World

PARENT = """
import subprocess, sys
command = [sys.executable, "-m", "benchmarks.launch", "sh", "-c", "echo it runs; exec sleep 60"]
print(subprocess.Popen(command).pid, flush=True)
sys.stdin.read()
"""


def installed(folder: Path, name: str, program: str) -> None:
    path = folder / name / GATEWAYS[name].program
    path.parent.mkdir(parents=True)
    path.write_text(program)
    path.chmod(0o755)
    version = folder / name / "lib" / "python3.11" / "site-packages" / f"{GATEWAYS[name].package}-1.2.3.dist-info"
    version.mkdir(parents=True)
    (version / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {GATEWAYS[name].package}\nVersion: 1.2.3\n")


def test_a_gateway_that_is_not_installed_is_a_note(tmp_path: Path) -> None:
    peers = find(tmp_path, [PLAIN])
    assert not peers.starts
    assert peers.notes == [f"{name} is not measured: it could not be installed" for name in GATEWAYS]


def test_one_that_is_installed_takes_part_with_its_version(tmp_path: Path) -> None:
    installed(tmp_path, "mlflow", "")
    peers = find(tmp_path, [PLAIN])
    assert list(peers.starts) == ["mlflow"]
    assert peers.versions == {"mlflow": "1.2.3"}


def test_one_that_does_not_start_is_a_note_with_its_last_words(tmp_path: Path) -> None:
    installed(tmp_path, "litellm", "#!/bin/sh\necho no licence\nexit 3\n")
    peers = find(tmp_path, [PLAIN])
    with World([PLAIN], peers.starts) as world:
        assert peers.begin(world) == []
    assert peers.notes[-1].startswith("litellm is not measured: ")
    assert "no licence" in peers.notes[-1]


def test_what_fails_of_a_peer_is_a_note_and_what_fails_of_forgeline_a_failure(tmp_path: Path) -> None:
    installed(tmp_path, "mlflow", "")
    peers = find(tmp_path, [PLAIN])
    failed = ["mlflow, 1 stream: the load client hung", "forgeline, 1 stream: status 500"]
    assert peers.not_theirs(failed) == ["forgeline, 1 stream: status 500"]
    assert "mlflow, 1 stream: the load client hung" in peers.notes
    assert Peers().not_theirs(failed) == failed


@pytest.mark.parametrize(
    ("question", "model", "chunks"),
    [(BURST, "burst-200", 200), (SINGLY, "burst-200-by-1", 200), (PACED, "paced-10-20ms", 10), (PLAIN, "plain", 0)],
)
def test_a_slow_one_is_asked_for_shorter_streams(question: Question, model: str, chunks: int) -> None:
    asked = shorter(question, GATEWAYS["litellm"])
    assert (asked.model, asked.chunks) == (model, chunks)
    assert shorter(question, GATEWAYS["mlflow"]) == question


@pytest.mark.parametrize("name", GATEWAYS)
def test_each_is_told_of_the_upstream_and_of_its_models(tmp_path: Path, name: str) -> None:
    gateway, place = GATEWAYS[name], Place(tmp_path, tmp_path, 4000, "http://127.0.0.1:5000/v1", ["plain"])
    command = gateway.command(place)
    told = str([command, gateway.variables(place), gateway.headers(place)])
    told += "".join(path.read_text() for path in tmp_path.iterdir())
    assert "4000" in str(command)
    assert "http://127.0.0.1:5000/v1" in told
    assert KEY in told


def test_headers_of_its_own_are_sent_with_each_request() -> None:
    sent = http1.request(80, "/v1", b"{}", "text/event-stream", {"x-portkey-provider": "openai"})
    head, _, body = sent.partition(b"\r\n\r\n")
    assert head.endswith(b"\r\nx-portkey-provider: openai")
    assert body == b"{}"


def test_a_program_ends_with_the_benchmark_that_was_killed_and_prints_to_standard_error() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", PARENT], **pipes) as parent:  # type: ignore[call-overload]
        program = os.pidfd_open(int(parent.stdout.readline()))
        assert parent.stderr.readline() == b"it runs\n"
        parent.send_signal(signal.SIGKILL)
        ended, _, _ = select.select([program], [], [], 20)
        assert ended == [program]
        os.close(program)
