"""The processes of a job: descendants, groups and marks of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from infraforge_runner.jobs import process_tree
from infraforge_runner.jobs.process_tree import descendants, kill_marked, process_group, send_signal

JOB = "4514d842-2305-45b5-ad96-1e79d0261ae2"
BASH = "/bin/bash"


@contextmanager
def start_script(script: str, mark: Path | None = None, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A script that has printed `ready`, with the mark open, in an environment of its own."""
    with ExitStack() as stack:
        marks = () if mark is None else (os.open(mark, os.O_RDONLY),)
        for descriptor in marks:
            stack.callback(os.close, descriptor)
        child = stack.enter_context(
            subprocess.Popen(
                [BASH, "-c", script],
                env={"PATH": os.environ["PATH"], **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=marks,
            )
        )
        stack.callback(child.kill)
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        yield child


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    path = tmp_path / "mark"
    path.touch()
    return path


def test_descendants_finds_deep_processes_with_odd_names(tmp_path: Path) -> None:
    name = tmp_path / "a) name (of 3"
    name.symlink_to(sys.executable)
    code = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
    script = f'exec 3<&0; echo ready; bash -c \'"{name}" -c "{code}" <&3; true\' & wait'
    with start_script(script) as child:
        assert child.stdout is not None
        deepest = int(child.stdout.readline())
        pids = descendants(child.pid)
        assert len(pids) == 2
        assert deepest in pids
        assert {child.pid, *pids} <= set(descendants(os.getpid()))
        assert descendants(deepest) == []


def test_process_group_and_signal_of_ended_process() -> None:
    with start_script("echo ready; read") as child:
        assert process_group(child.pid) == os.getpgrp()
        child.kill()
        child.wait()
        assert process_group(child.pid) is None
        send_signal(child.pid, signal.SIGKILL)


def test_kill_marked_kills_marked_processes_only(mark: Path) -> None:
    waits = "echo ready; read"
    with (
        start_script(waits, mark) as marked_by_file,
        start_script(waits, FORGELINE_JOB=JOB) as marked_by_variable,
        start_script(waits, mark, FORGELINE_JOB=JOB) as marked_by_both,
        start_script(waits) as stranger,
        start_script(waits, FORGELINE_JOB=f"{JOB}0") as other_job,
        start_script(waits, OTHER_FORGELINE_JOB=JOB) as other_variable,
        start_script(waits, mark.parent) as folder_open,
    ):
        assert kill_marked(JOB, mark) == 3
        for child in (marked_by_file, marked_by_variable, marked_by_both):
            assert child.wait(timeout=5) == -signal.SIGKILL
        for other in (stranger, other_job, other_variable, folder_open):
            assert other.poll() is None
        assert kill_marked(JOB, mark) == 0


def test_kill_marked_ignores_other_file_of_same_name(mark: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "mark"
    other.parent.mkdir()
    other.touch()
    with start_script("echo ready; read", other) as child:
        assert kill_marked(JOB, mark) == 0
        assert child.poll() is None


def test_kill_marked_kills_processes_that_keep_forking(mark: Path) -> None:
    forks = "while :; do (sleep 0.01; :) & done"
    with start_script(f"echo ready; ( {forks} ) & ( {forks} ) & sleep 0.2; exit", mark, FORGELINE_JOB=JOB) as child:
        assert kill_marked(JOB, mark) >= 2
        child.wait(timeout=5)
        assert kill_marked(JOB, mark) == 0


def test_kill_marked_gives_up_on_unkillable_process(mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_tree, "GIVE_UP_SECONDS", 0.05)
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda descriptor, number: None)  # as if the kernel did not end it
    with start_script("echo ready; read", mark) as child:
        assert kill_marked(JOB, mark) == 1
        assert child.poll() is None
