"""The processes of jobs, for tests that kill them: their pids, whether they run, and scripts that try to escape."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import aclosing
from pathlib import Path

from infraforge_runner.jobs.process_tree import PROC
from tests.jobs import follow_log, submit, wait_for_log_text
from tests.processes import ServerProcess
from tests.running_server import scripted_model

MODELS = {"m": scripted_model("echo")}
WAIT_FOR_GO_FILE = "echo ready; until [ -e go ]; do sleep 0.05; done"
MAX_JOB_SECONDS = 30  # a job that a failing test leaves behind ends by itself after that

BURSTS, LINES = 60, 500
BURST_SCRIPT = f"""
for burst in $(seq 1 {BURSTS}); do
    seq -f 'line %06g of a deploy' $((burst * {LINES} - {LINES - 1})) $((burst * {LINES}))
    sleep 0.04
done
"""
BURST_OUTPUT = "".join(f"line {number:06} of a deploy\n" for number in range(1, BURSTS * LINES + 1))

RUNAWAY_NAMES = ("session", "cleared", "closed", "double")
RUNAWAY_SCRIPT = f"""
setsid bash -c 'echo $$ > session; exec sleep {MAX_JOB_SECONDS}' &
env -i PATH="$PATH" setsid bash -c 'echo $$ > cleared; exec sleep {MAX_JOB_SECONDS}' &
setsid bash -c '
    for file in /proc/$$/fd/*; do eval "exec ${{file##*/}}>&-"; done
    echo $$ > closed; exec sleep {MAX_JOB_SECONDS}' &
( ( bash -c 'echo $$ > double; exec sleep {MAX_JOB_SECONDS}' & ) & )
until [ -s session ] && [ -s cleared ] && [ -s closed ] && [ -s double ]; do sleep 0.02; done
echo $$ > script
echo ready
sleep {MAX_JOB_SECONDS}
"""


def find_supervisors(path: Path) -> list[int]:
    """The pids of the supervisors of the jobs under this path."""
    pids = []
    for entry in PROC.iterdir():
        try:
            command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:  # it has ended
            continue
        if b"\0infraforge_runner.jobs.supervisor\0" + os.fsencode(path) in command:
            pids.append(int(entry.name))
    return pids


async def wait_for_supervisor(folder: Path, job_id: str, other_than: int | None = None) -> int:
    """The pid of the job's supervisor, as soon as there is one; with `other_than`, of its successor."""
    path = folder / "data" / "jobs" / job_id
    while not (pids := set(find_supervisors(path)) - {other_than}):  # noqa: ASYNC110 - no event for a new process
        await asyncio.sleep(0.001)
    return pids.pop()


def kill_supervisor(folder: Path, job_id: str) -> None:
    (pid,) = find_supervisors(folder / "data" / "jobs" / job_id)
    os.kill(pid, signal.SIGKILL)


def is_running(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] != "Z"


def read_pid(folder: Path, job_id: str, name: str) -> int:
    """The pid that a process of the job has written into a file in its work folder."""
    return int((folder / "data" / "jobs" / job_id / "work" / name).read_text())


def release_job(folder: Path, job_id: str) -> None:
    (folder / "data" / "jobs" / job_id / "work" / "go").touch()


async def read_log_until(server: ServerProcess, job_id: str, start: int, end: int) -> str:
    """The log from offset `start` to `end` or later, as a follower gets it."""
    text = ""
    async with aclosing(follow_log(server, job_id, start)) as events:
        async for event in events:
            text += event.get("text", "")
            if event["type"] == "job" or event["next_offset"] >= end:
                break
    return text


async def start_runaway_job(server: ServerProcess, folder: Path) -> tuple[str, list[int]]:
    """Submit a job whose processes try everything to escape; return its id and their pids."""
    job_id = (await submit(server))["job_id"]
    await wait_for_log_text(server, job_id, "ready")
    pids = [read_pid(folder, job_id, name) for name in (*RUNAWAY_NAMES, "script")]
    session, cleared, closed, *_ = pids
    assert os.getsid(session) == session
    assert b"FORGELINE_JOB" not in (PROC / str(cleared) / "environ").read_bytes()
    assert list((PROC / str(closed) / "fd").iterdir()) == []
    assert all(map(is_running, pids))
    return job_id, pids
