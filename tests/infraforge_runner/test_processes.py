"""What belongs to a job, told from what does not: descendants, groups and marks of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from infraforge_runner import processes
from infraforge_runner.processes import descendants, end_marked, group_of, send

JOB = "4514d842-2305-45b5-ad96-1e79d0261ae2"
BASH = "/bin/bash"


@contextmanager
def started(script: str, mark: Path | None = None, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A script that has said `ready`, with the mark open, and in an environment of its own."""
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


def test_descendants_are_found_however_deep_and_whatever_they_are_called(tmp_path: Path) -> None:
    name = tmp_path / "a) name (of 3"
    name.symlink_to(sys.executable)
    code = "import os, sys; print(os.getpid(), flush=True); sys.stdin.read()"
    script = f'exec 3<&0; echo ready; bash -c \'"{name}" -c "{code}" <&3; true\' & wait'
    with started(script) as child:
        assert child.stdout is not None
        deepest = int(child.stdout.readline())
        found = descendants(child.pid)
        assert len(found) == 2
        assert deepest in found
        assert {child.pid, *found} <= set(descendants(os.getpid()))
        assert descendants(deepest) == []


def test_who_has_ended_has_no_group_and_takes_no_signal() -> None:
    with started("echo ready; read") as child:
        assert group_of(child.pid) == os.getpgrp()
        child.kill()
        child.wait()
        assert group_of(child.pid) is None
        send(child.pid, signal.SIGKILL)


def test_who_carries_a_mark_is_ended_and_who_does_not_is_left_alone(mark: Path) -> None:
    waits = "echo ready; read"
    with (
        started(waits, mark) as by_file,
        started(waits, FORGELINE_JOB=JOB) as by_environment,
        started(waits, mark, FORGELINE_JOB=JOB) as by_both,
        started(waits) as stranger,
        started(waits, FORGELINE_JOB=f"{JOB}0") as of_another,
        started(waits, OTHER_FORGELINE_JOB=JOB) as of_another_name,
        started(waits, mark.parent) as of_the_folder,
    ):
        assert end_marked(JOB, mark) == 3
        for ended in (by_file, by_environment, by_both):
            assert ended.wait(timeout=5) == -signal.SIGKILL
        for other in (stranger, of_another, of_another_name, of_the_folder):
            assert other.poll() is None
        assert end_marked(JOB, mark) == 0


def test_a_file_of_the_same_name_elsewhere_is_no_mark(mark: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "mark"
    other.parent.mkdir()
    other.touch()
    with started("echo ready; read", other) as child:
        assert end_marked(JOB, mark) == 0
        assert child.poll() is None


def test_those_who_fork_without_end_are_ended_too(mark: Path) -> None:
    forks = "while :; do (sleep 0.01; :) & done"
    with started(f"echo ready; ( {forks} ) & ( {forks} ) & sleep 0.2; exit", mark, FORGELINE_JOB=JOB) as child:
        assert end_marked(JOB, mark) >= 2
        child.wait(timeout=5)
        assert end_marked(JOB, mark) == 0


def test_what_can_not_be_ended_is_given_up(mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GIVE_UP_AFTER", 0.05)
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda descriptor, number: None)  # as if the kernel held it back
    with started("echo ready; read", mark) as child:
        assert end_marked(JOB, mark) == 1
        assert child.poll() is None
