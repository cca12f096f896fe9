"""What the soak looks at: memory, files, threads, processes and tasks, by the kernel, /metrics and asyncio."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import proc
from benchmarks.soak.process import Forgeline

GAUGES = ("open_streams", "open_sockets", "upstream_connections", "queue_length", "log_followers")
MB = 1024.0  # /proc counts in kB


@dataclass(frozen=True)
class Sample:
    """One moment. `counts` are those that have to come back to what they were when the load has ended."""

    at: float  # seconds on a monotonic clock
    rss: float  # MB
    uss: float  # MB that no other process shares: what would be free if the server went away
    counts: dict[str, int]
    tasks: dict[str, int]  # by the first word of their names

    def __str__(self) -> str:
        counts = "  ".join(f"{name} {count}" for name, count in self.counts.items())
        return f"rss {self.rss:.1f}  uss {self.uss:.1f} MB  {counts}"


async def look(server: Forgeline, http: aiohttp.ClientSession) -> Sample:
    gauges, tasks = await read_gauges(server.url, http), await server.tasks()
    folder = Path(f"/proc/{server.pid}")
    memory = kilobytes(folder / "smaps_rollup")
    # The scrape's own connection is among the files, always: the session keeps it.
    files = [link for link in map(target_of, (folder / "fd").iterdir()) if link]
    counts = {
        "files": len(files),
        "sockets": sum(link.startswith("socket:") for link in files),
        "threads": len(list((folder / "task").iterdir())),
        "processes": len(proc.children(server.pid)),
        "tasks": sum(tasks.values()),
        **gauges,
    }
    uss = memory["Private_Clean"] + memory["Private_Dirty"]
    return Sample(time.monotonic(), memory["Rss"] / MB, uss / MB, counts, tasks)


async def read_gauges(url: str, http: aiohttp.ClientSession) -> dict[str, int]:
    async with http.get(f"{url}/metrics") as answer:
        text = await answer.text()
    sums = dict.fromkeys(GAUGES, 0.0)
    for family in text_string_to_metric_families(text):
        name = family.name.removeprefix("forgeline_")
        if name in sums:
            sums[name] = sum(sample.value for sample in family.samples)
    return {name: int(value) for name, value in sums.items()}


def kilobytes(path: Path) -> dict[str, int]:
    lines = (line.split() for line in path.read_text().splitlines()[1:])
    return {name.rstrip(":"): int(value) for name, value, *_ in lines}


def target_of(link: Path) -> str:
    with suppress(OSError):  # closed since it was listed
        return os.readlink(link)
    return ""


def processes_in(folder: Path) -> list[str]:
    """Every process that works in this folder or names it in its command or its environment, as a line to show."""
    return [said for entry in Path("/proc").iterdir() if entry.name.isdigit() and (said := traces(entry, folder))]


def traces(entry: Path, folder: Path) -> str:
    with suppress(OSError):  # it has ended since, or is not ours to look at
        command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        known = command + (entry / "environ").read_bytes().decode(errors="replace") + target_of(entry / "cwd")
        if int(entry.name) != os.getpid() and str(folder) in known:
            return f"{entry.name}: {command}"
    return ""
