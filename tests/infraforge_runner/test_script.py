"""A script whose processes are not all to be ended: another user's, or some that the kernel holds back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio, os, signal, sys
from contextlib import suppress
from pathlib import Path
from infraforge_runner import script
from infraforge_runner.processes import become_subreaper

script.KILL_AFTER = script.GIVE_UP_AFTER = script.LAST_OUTPUT = 0.1
script.RELEASE_AFTER = 60.0

async def main():
    log = os.open("log", os.O_WRONLY | os.O_CREAT)
    mark = os.open(os.devnull, os.O_RDONLY)
    job = script.Script(log, [], print)
    job.start(["bash", "script"], Path.cwd(), dict(os.environ), mark)
    await job.exited
    left = script.descendants(os.getpid())
    script.send = lambda pid, number: None  # as if it were another user's
    with suppress(TimeoutError):
        await job.end()
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


def test_what_can_not_be_ended_is_given_up_and_the_last_of_the_output_is_kept(tmp_path: Path) -> None:
    (tmp_path / "script").write_text(SCRIPT)
    root = Path(__file__).resolve().parents[2]
    told = subprocess.run(  # a process of its own: it waits for whatever child there is
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (told.stderr, told.stdout, told.returncode) == ("", "", 0)
    assert (tmp_path / "log").read_text() == "begun\nAKIAIOSFODNN"
