"""The processes of jobs, for tests that kill them: who they are, whether they live, and jobs that make it hard."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import aclosing
from pathlib import Path

from infraforge_runner.processes import PROC
from tests.jobs import follow, said, submit
from tests.processes import Process
from tests.serving import says

MODELS = {"m": says("echo")}
UNTIL_TOLD = "echo ready; until [ -e go ]; do sleep 0.05; done"
SECONDS = 30  # a job that a failing test leaves behind ends by itself after that

BURSTS, LINES = 60, 500
BURSTING = f"""
for burst in $(seq 1 {BURSTS}); do
    seq -f 'line %06g of a deploy' $((burst * {LINES} - {LINES - 1})) $((burst * {LINES}))
    sleep 0.04
done
"""
WHOLE = "".join(f"line {number:06} of a deploy\n" for number in range(1, BURSTS * LINES + 1))

RUNAWAYS = ("session", "cleared", "closed", "double")
RUNNING_AWAY = f"""
setsid bash -c 'echo $$ > session; exec sleep {SECONDS}' &
env -i PATH="$PATH" setsid bash -c 'echo $$ > cleared; exec sleep {SECONDS}' &
setsid bash -c '
    for file in /proc/$$/fd/*; do eval "exec ${{file##*/}}>&-"; done
    echo $$ > closed; exec sleep {SECONDS}' &
( ( bash -c 'echo $$ > double; exec sleep {SECONDS}' & ) & )
until [ -s session ] && [ -s cleared ] && [ -s closed ] && [ -s double ]; do sleep 0.02; done
echo $$ > script
echo ready
sleep {SECONDS}
"""


def supervisors(path: Path) -> list[int]:
    """Those of the jobs under this path."""
    found = []
    for entry in PROC.iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:  # it has ended
            continue
        if b"\0infraforge_runner.supervisor\0" + os.fsencode(path) in command:
            found.append(int(entry.name))
    return found


async def supervisor_of(folder: Path, job_id: str, other_than: int | None = None) -> int:
    """The job's supervisor, as soon as there is one; with `other_than`, its successor."""
    path = folder / "data" / "jobs" / job_id
    while not (found := set(supervisors(path)) - {other_than}):  # noqa: ASYNC110 - nobody tells of a new process
        await asyncio.sleep(0.001)
    return found.pop()


def kill_supervisor(folder: Path, job_id: str) -> None:
    (pid,) = supervisors(folder / "data" / "jobs" / job_id)
    os.kill(pid, signal.SIGKILL)


def lives(pid: int) -> bool:
    """Whether it does anything: one that has ended, but that nobody has waited for yet, does not."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] != "Z"


def pid_in(folder: Path, job_id: str, name: str) -> int:
    """The pid that a process of the job has written into a file of this name."""
    return int((folder / "data" / "jobs" / job_id / "work" / name).read_text())


def let_go(folder: Path, job_id: str) -> None:
    (folder / "data" / "jobs" / job_id / "work" / "go").touch()


async def read_until(server: Process, job_id: str, begin: int, until: int) -> str:
    """The log from one byte on, and at least to another one, as a follower gets it."""
    text = ""
    async with aclosing(follow(server, job_id, begin)) as events:
        async for event in events:
            text += event.get("text", "")
            if event["type"] == "job" or event["next_offset"] >= until:
                break
    return text


async def run_away(server: Process, folder: Path) -> tuple[str, list[int]]:
    """A job that has tried everything to leave processes behind, and those processes."""
    job_id = (await submit(server))["job_id"]
    await said(server, job_id, "ready")
    pids = [pid_in(folder, job_id, name) for name in (*RUNAWAYS, "script")]
    session, cleared, closed, *_ = pids
    assert os.getsid(session) == session
    assert b"FORGELINE_JOB" not in (PROC / str(cleared) / "environ").read_bytes()
    assert list((PROC / str(closed) / "fd").iterdir()) == []
    assert all(map(lives, pids))
    return job_id, pids
