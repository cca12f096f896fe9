"""Samples of the soak: memory, files, threads, processes and tasks, from /proc, /metrics and asyncio."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import processes
from benchmarks.soak.process import ForgelineProcess

GAUGES = ("open_streams", "open_sockets", "upstream_connections", "queue_length", "log_followers")
KB_PER_MB = 1024.0  # /proc has kB


@dataclass(frozen=True)
class Sample:
    """One sample. `counts` must be back at their baseline after the load."""

    at: float  # seconds on a monotonic clock
    rss: float  # MB
    uss: float  # private MB, which would be free without the server
    counts: dict[str, int]
    tasks: dict[str, int]  # by the first word of their names

    def __str__(self) -> str:
        counts = "  ".join(f"{name} {count}" for name, count in self.counts.items())
        return f"rss {self.rss:.1f}  uss {self.uss:.1f} MB  {counts}"


async def take_sample(server: ForgelineProcess, http: aiohttp.ClientSession) -> Sample:
    gauges, tasks = await read_gauges(server.url, http), await server.count_tasks()
    folder = Path(f"/proc/{server.pid}")
    memory = read_kilobytes(folder / "smaps_rollup")
    # The connection of the scrape itself is always among the files, since the session keeps it.
    files = [target for target in map(read_link, (folder / "fd").iterdir()) if target]
    counts = {
        "files": len(files),
        "sockets": sum(target.startswith("socket:") for target in files),
        "threads": len(list((folder / "task").iterdir())),
        "processes": len(processes.child_pids(server.pid)),
        "tasks": sum(tasks.values()),
        **gauges,
    }
    uss = memory["Private_Clean"] + memory["Private_Dirty"]
    return Sample(time.monotonic(), memory["Rss"] / KB_PER_MB, uss / KB_PER_MB, counts, tasks)


async def read_gauges(url: str, http: aiohttp.ClientSession) -> dict[str, int]:
    async with http.get(f"{url}/metrics") as response:
        text = await response.text()
    sums = dict.fromkeys(GAUGES, 0.0)
    for family in text_string_to_metric_families(text):
        name = family.name.removeprefix("forgeline_")
        if name in sums:
            sums[name] = sum(sample.value for sample in family.samples)
    return {name: int(value) for name, value in sums.items()}


def read_kilobytes(path: Path) -> dict[str, int]:
    lines = (line.split() for line in path.read_text().splitlines()[1:])
    return {name.rstrip(":"): int(value) for name, value, *_ in lines}


def read_link(link: Path) -> str:
    with suppress(OSError):  # closed in the meantime
        return os.readlink(link)
    return ""


def processes_in(folder: Path) -> list[str]:
    """Every process with this working directory, or with it in its command line or environment: pid and command."""
    process_dirs = (path for path in Path("/proc").iterdir() if path.name.isdigit())
    return [line for process_dir in process_dirs if (line := describe_if_related(process_dir, folder))]


def describe_if_related(process_dir: Path, folder: Path) -> str:
    with suppress(OSError):  # it has ended, or belongs to another user
        command = (process_dir / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        environment = (process_dir / "environ").read_bytes().decode(errors="replace")
        searched = command + environment + read_link(process_dir / "cwd")
        if int(process_dir.name) != os.getpid() and str(folder) in searched:
            return f"{process_dir.name}: {command}"
    return ""
