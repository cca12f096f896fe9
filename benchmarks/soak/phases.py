"""The phases of a soak: each kind of user once, a baseline sample, the load, the return to the baseline, the end."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from benchmarks.soak import checks
from benchmarks.soak.client import Client
from benchmarks.soak.process import ForgelineProcess, start_forgeline
from benchmarks.soak.sampling import Sample, processes_in, take_sample
from benchmarks.soak.users import run_all, run_each_once

# Short retention, so that all rings are full long before memory is judged.
KEEP_JOBS = 10
STREAM_KEEP_FRACTION = 0.1  # of the load's duration
MIN_KEPT_SECONDS = 30  # long enough to resume a stream on a busy machine

SAMPLE_INTERVAL = 5.0  # seconds; less in a short soak
MIN_SAMPLES = 20
SETTLE_SECONDS = 6.0  # Forgeline keeps an idle connection to a model for 4 s
RETURN_TIMEOUT = 45.0  # seconds, until counts are as before the load


async def run_soak(work_dir: Path, seconds: float) -> list[str]:
    """Run a soak and return its failures. Raises StartError, and SoakFailure in a group."""
    stream_keep = max(MIN_KEPT_SECONDS, seconds * STREAM_KEEP_FRACTION)
    options = ("--keep-jobs", str(KEEP_JOBS), "--stream-keep", str(stream_keep))
    async with start_forgeline(work_dir, *options) as server, aiohttp.ClientSession() as http:
        async with connect_client(server) as client:
            await run_each_once(client, server.presets / "models")
        await asyncio.sleep(SETTLE_SECONDS)
        before = await take_sample(server, http)
        print_sample("before", before)
        async with connect_client(server) as client:
            samples = await run_load(server, http, client, seconds)
        after = await wait_for_return(server, http, before)
        print_sample("after", after)
        exit_code = await server.stop()
    print(", ".join(f"{count} {name}" for name, count in client.turns.items()))
    return [
        *checks.check_memory(samples, seconds),
        *checks.check_counts(before, after),
        *(f"it outlived Forgeline: {line}" for line in processes_in(work_dir)),
        *checks.check_log((work_dir / "forgeline.log").read_text(errors="replace")),
        *([f"Forgeline ended with {exit_code}"] if exit_code else []),
    ]


@asynccontextmanager
async def connect_client(server: ForgelineProcess) -> AsyncIterator[Client]:
    """A client whose connections end with the block."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        yield Client(server.url, http)


async def run_load(
    server: ForgelineProcess, http: aiohttp.ClientSession, client: Client, seconds: float
) -> list[Sample]:
    """Run all users for `seconds`, and take samples meanwhile."""
    stop, samples, start = asyncio.Event(), list[Sample](), time.monotonic()
    count = max(MIN_SAMPLES, round(seconds / SAMPLE_INTERVAL))
    async with asyncio.TaskGroup() as group:
        group.create_task(run_all(client, server.presets / "models", stop))
        for number in range(1, count + 1):
            await asyncio.sleep(start + seconds * number / count - time.monotonic())
            samples.append(await take_sample(server, http))
            print_sample(f"{samples[-1].at - start:5.0f} s", samples[-1], f"  turns {client.turns.total()}")
        stop.set()
    return samples


async def wait_for_return(server: ForgelineProcess, http: aiohttp.ClientSession, before: Sample) -> Sample:
    """Sample until all counts are as in `before`, or RETURN_TIMEOUT. Returns the last sample."""
    deadline = time.monotonic() + RETURN_TIMEOUT
    while True:
        await asyncio.sleep(SETTLE_SECONDS / 6)
        sample = await take_sample(server, http)
        if not checks.check_counts(before, sample) or time.monotonic() > deadline:
            return sample


def print_sample(label: str, sample: Sample, suffix: str = "") -> None:
    print(f"{label:8} {sample}{suffix}", flush=True)
