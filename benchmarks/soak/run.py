"""One soak: each user once, rest, the load, rest again, the end; and what was wrong with it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from benchmarks.soak import verdict
from benchmarks.soak.client import Client
from benchmarks.soak.crowd import everybody, one_of_each
from benchmarks.soak.process import Forgeline, forgeline
from benchmarks.soak.watch import Sample, look, processes_in

# What Forgeline keeps for a while has filled its place long before memory is judged.
KEPT_JOBS = 10
KEPT_STREAMS = 0.1  # of the load's time, but long enough for whoever resumes one
RESUMES_WITHIN = 30  # seconds, on a machine that is busy with other things

PERIOD = 5.0  # seconds between two samples, less in a short soak
FEWEST = 20  # samples
REST = 6.0  # seconds: Forgeline keeps an idle connection to a model for 4
RETURN = 45.0  # seconds for everything to come back


async def soak(work: Path, seconds: float) -> list[str]:
    """What was wrong. Raises proc.StartFailed; in a group, Wrong for a wrong answer."""
    kept_streams = max(RESUMES_WITHIN, seconds * KEPT_STREAMS)
    kept = ("--keep-jobs", str(KEPT_JOBS), "--stream-keep", str(kept_streams))
    async with forgeline(work, *kept) as server, aiohttp.ClientSession() as http:
        async with users(server) as client:
            await one_of_each(client, server.presets / "models")
        await asyncio.sleep(REST)
        before = await look(server, http)
        say("before", before)
        async with users(server) as client:
            samples = await load(server, http, client, seconds)
        after = await come_back(server, http, before)
        say("after", after)
        code = await server.stopped()
    print(", ".join(f"{count} {name}" for name, count in client.turns.items()))
    return [
        *verdict.of_memory(samples, seconds),
        *verdict.of_counts(before, after),
        *(f"it outlived Forgeline: {line}" for line in processes_in(work)),
        *verdict.of_log((work / "forgeline.log").read_text(errors="replace")),
        *([f"Forgeline ended with {code}"] if code else []),
    ]


@asynccontextmanager
async def users(server: Forgeline) -> AsyncIterator[Client]:
    """Their connections end with them."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        yield Client(server.url, http)


async def load(server: Forgeline, http: aiohttp.ClientSession, client: Client, seconds: float) -> list[Sample]:
    """Everybody for so long, and what Forgeline looks like meanwhile."""
    over, samples, start = asyncio.Event(), list[Sample](), time.monotonic()
    count = max(FEWEST, round(seconds / PERIOD))
    async with asyncio.TaskGroup() as group:
        group.create_task(everybody(client, server.presets / "models", over))
        for number in range(1, count + 1):
            await asyncio.sleep(start + seconds * number / count - time.monotonic())
            samples.append(await look(server, http))
            say(f"{samples[-1].at - start:5.0f} s", samples[-1], f"  turns {client.turns.total()}")
        over.set()
    return samples


async def come_back(server: Forgeline, http: aiohttp.ClientSession, before: Sample) -> Sample:
    """How Forgeline is once everything is as it was before, or after a while anyway."""
    deadline = time.monotonic() + RETURN
    while True:
        await asyncio.sleep(REST / 6)
        now = await look(server, http)
        if not verdict.of_counts(before, now) or time.monotonic() > deadline:
            return now


def say(when: str, sample: Sample, more: str = "") -> None:
    print(f"{when:8} {sample}{more}", flush=True)
