"""The Forgeline process of the soak: its presets, start, stop, and counts of its asyncio tasks."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from benchmarks import processes

ROOT = Path(__file__).parents[2]
STOP_TIMEOUT = 40  # seconds, draining included

STREAMS = ("burst-200", "paced-100-10ms", "paced-1000-10ms")
PRINT_LINE = 'echo "line $line of a deploy that says what it does"; sleep 0.02'
# Both have a background process, as a deploy has. One ends after some seconds, the other only when cancelled.
JOB_SCRIPTS = {
    "talks": f"sleep 1000 & sleeper=$!\nfor line in $(seq 1 250); do {PRINT_LINE}; done\nkill $sleeper\n",
    "stays": f"sleep 1000 &\nline=1\nwhile true; do {PRINT_LINE}; line=$((line + 1)); done\n",
}


def write_presets(folder: Path, upstream_port: int, closed_port: int) -> None:
    """`closed_port`: a port on which no process listens."""
    models = folder / "models"
    models.mkdir(parents=True)
    (models / "plain.yaml").write_text(model_preset("plain", upstream_port, "text, image"))
    for name in STREAMS:
        (models / f"{name}.yaml").write_text(model_preset(name, upstream_port, "text, stream"))
    (models / "gone.yaml").write_text(model_preset("gone", closed_port, "text"))
    # A worker process scales down pictures of more pixels.
    picky = model_preset("plain", upstream_port, "text, image") + "limits: {frame_pixels: 10000}\n"
    (models / "picky.yaml").write_text(picky)
    (folder / "pipeline.yaml").write_bytes((ROOT / "presets" / "pipeline.yaml").read_bytes())
    hyperpod = folder / "hyperpod"
    hyperpod.mkdir()
    (hyperpod / "small.yaml").write_bytes((ROOT / "presets" / "hyperpod" / "small.yaml").read_bytes())
    for name, script in JOB_SCRIPTS.items():
        (hyperpod / f"{name}.sh").write_text(script)
        (hyperpod / f"{name}.yaml").write_text(
            f"config: {{global: {{stackName: {name}}}}}\nscripts: {{deploy: hyperpod/{name}.sh}}\n"
        )


def model_preset(name: str, port: int, capabilities: str) -> str:
    return (
        f"provider: openai_compatible\nmodel: {name}\n"
        f"base_url: http://127.0.0.1:{port}/v1\ncapabilities: [{capabilities}]\n"
    )


class ForgelineProcess:
    def __init__(self, process: asyncio.subprocess.Process, url: str, presets: Path) -> None:
        self._process, self.url, self.presets = process, url, presets
        self.pid = process.pid

    async def count_tasks(self) -> dict[str, int]:
        """The number of asyncio tasks by name (soak/server.py)."""
        self._process.send_signal(signal.SIGUSR1)
        tasks: dict[str, int] = json.loads(await self.read_line())
        return tasks

    async def read_line(self) -> bytes:
        assert self._process.stdout is not None
        async with asyncio.timeout(10):
            return await self._process.stdout.readline()

    async def stop(self) -> int:
        """Stop the process. Returns its exit code."""
        self._process.terminate()
        async with asyncio.timeout(STOP_TIMEOUT):
            return await self._process.wait()


@asynccontextmanager
async def start_forgeline(work_dir: Path, *options: str) -> AsyncIterator[ForgelineProcess]:
    """Run Forgeline. Raises StartError."""
    with (work_dir / "forgeline.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *processes.module_command("soak.server", "--port", "0"),
            *("--presets", str(work_dir / "presets"), "--data", str(work_dir / "data"), *options),
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env=processes.clean_environment(),
            cwd=ROOT,
        )
    server = ForgelineProcess(process, "", work_dir / "presets")
    try:
        first_line = (await server.read_line()).decode()
        if not first_line.startswith("listening on "):
            raise processes.StartError((work_dir / "forgeline.log").read_text(errors="replace")[-2000:])
        server.url = first_line.split()[-1]
        yield server
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
