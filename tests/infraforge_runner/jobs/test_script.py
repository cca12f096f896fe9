"""A script with processes that can't be ended: another user's, or those that the kernel does not end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio, os, signal, sys
from contextlib import suppress
from pathlib import Path
from infraforge_runner.jobs import script
from infraforge_runner.jobs.process_tree import become_subreaper

script.KILL_AFTER_SECONDS = script.GIVE_UP_SECONDS = script.LAST_OUTPUT_SECONDS = 0.1
script.RELEASE_SECONDS = 60.0

async def main():
    log = os.open("log", os.O_WRONLY | os.O_CREAT)
    mark = os.open(os.devnull, os.O_RDONLY)
    job = script.Script(log, [], print)
    job.start(["bash", "script"], Path.cwd(), dict(os.environ), mark)
    await job.exited
    left = script.descendants(os.getpid())
    script.send_signal = lambda pid, number: None  # as if it were another user's
    with suppress(TimeoutError):
        await job.terminate()
        print("not given up")
    for pid in left:
        os.kill(pid, signal.SIGKILL)

become_subreaper()
asyncio.run(main())
"""

SCRIPT = """
echo begun
setsid bash -c 'touch away; exec sleep 20' &
until [ -e away ]; do sleep 0.01; done
printf AKIAIOSFODNN
"""


def test_terminate_gives_up_on_unkillable_process_and_keeps_last_output(tmp_path: Path) -> None:
    (tmp_path / "script").write_text(SCRIPT)
    root = Path(__file__).resolve().parents[3]
    process = subprocess.run(  # a process of its own: it waits for whatever child there is
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (process.stderr, process.stdout, process.returncode) == ("", "", 0)
    assert (tmp_path / "log").read_text() == "begun\nAKIAIOSFODNN"
