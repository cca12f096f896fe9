"""The soak's Forgeline: its presets, its process, and the tasks that it tells of."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from benchmarks import proc

ROOT = Path(__file__).parents[2]
LAST = 40  # seconds to end in, draining included

STREAMS = ("burst-200", "paced-100-10ms", "paced-1000-10ms")
LINE = 'echo "line $line of a deploy that says what it does"; sleep 0.02'
# Both have a process beside them, as a deploy has. One ends after some seconds, the other when it is cancelled.
SCRIPTS = {
    "talks": f"sleep 1000 & sleeper=$!\nfor line in $(seq 1 250); do {LINE}; done\nkill $sleeper\n",
    "stays": f"sleep 1000 &\nline=1\nwhile true; do {LINE}; line=$((line + 1)); done\n",
}


def write_presets(folder: Path, upstream: int, closed: int) -> None:
    """`closed` is a port where nobody listens."""
    models = folder / "models"
    models.mkdir(parents=True)
    (models / "plain.yaml").write_text(model("plain", upstream, "text, image"))
    for name in STREAMS:
        (models / f"{name}.yaml").write_text(model(name, upstream, "text, stream"))
    (models / "gone.yaml").write_text(model("gone", closed, "text"))
    # A picture of more pixels is made smaller first, by a worker.
    (models / "picky.yaml").write_text(model("plain", upstream, "text, image") + "limits: {frame_pixels: 10000}\n")
    (folder / "pipeline.yaml").write_bytes((ROOT / "presets" / "pipeline.yaml").read_bytes())
    jobs = folder / "hyperpod"
    jobs.mkdir()
    (jobs / "small.yaml").write_bytes((ROOT / "presets" / "hyperpod" / "small.yaml").read_bytes())
    for name, script in SCRIPTS.items():
        (jobs / f"{name}.sh").write_text(script)
        (jobs / f"{name}.yaml").write_text(
            f"config: {{global: {{stackName: {name}}}}}\nscripts: {{deploy: hyperpod/{name}.sh}}\n"
        )


def model(name: str, port: int, capabilities: str) -> str:
    return (
        f"provider: openai_compatible\nmodel: {name}\n"
        f"base_url: http://127.0.0.1:{port}/v1\ncapabilities: [{capabilities}]\n"
    )


class Forgeline:
    def __init__(self, process: asyncio.subprocess.Process, url: str, presets: Path) -> None:
        self._process, self.url, self.presets = process, url, presets
        self.pid = process.pid

    async def tasks(self) -> dict[str, int]:
        self._process.send_signal(signal.SIGUSR1)
        tasks: dict[str, int] = json.loads(await self.line())
        return tasks

    async def line(self) -> bytes:
        assert self._process.stdout is not None
        async with asyncio.timeout(10):
            return await self._process.stdout.readline()

    async def stopped(self) -> int:
        """Its exit code."""
        self._process.terminate()
        async with asyncio.timeout(LAST):
            return await self._process.wait()


@asynccontextmanager
async def forgeline(work: Path, *options: str) -> AsyncIterator[Forgeline]:
    """Raises proc.StartFailed."""
    with (work / "forgeline.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *proc.module("soak.server", "--port", "0"),
            *("--presets", str(work / "presets"), "--data", str(work / "data"), *options),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=proc.environment(),
            cwd=ROOT,
        )
    server = Forgeline(process, "", work / "presets")
    try:
        said = (await server.line()).decode()
        if not said.startswith("listening on "):
            raise proc.StartFailed((work / "forgeline.log").read_text(errors="replace")[-2000:])
        server.url = said.split()[-1]
        yield server
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
