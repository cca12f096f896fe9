"""Users who run jobs, read their logs, and save presets."""

from pathlib import Path
from typing import Any

from benchmarks.soak.client import ASKED, SSE, Client, check, heard

JOBS = "/api/hyperpod/jobs"


async def ran(client: Client) -> None:
    """A job that talks for some seconds; every third one would not end, and is cancelled."""
    preset, expected = ("stays", "cancelled") if client.turns["ran"] % 3 == 2 else ("talks", "succeeded")
    client.job = await submitted(client, preset=preset, dry_run=False)
    if preset == "stays":
        await followed(client, client.job, parts=50)
        await client.answer("POST", f"{JOBS}/{client.job}/cancel", 202)
    await ended(client, client.job, expected)


async def rehearsed(client: Client) -> None:
    await ended(client, await submitted(client, preset="small", dry_run=True), "succeeded")


async def tailed(client: Client) -> None:
    if client.job:
        await followed(client, client.job, parts=20)


async def tailed_on_a_socket(client: Client) -> None:
    if client.job:
        async with client.socket() as socket:
            await socket.send_json({"op": "tail", "id": "a", "job_id": client.job, "lines": 5})
            await heard(socket, "log")


async def saved(client: Client, models: Path) -> None:
    """A preset that is saved well, then badly. The feed tells both, and the last good one stays in force."""
    good = (models / "plain.yaml").read_text() + f"limits: {{max_tokens: {client.rng.randrange(100, 10**9)}}}\n"
    async with client.socket() as socket:
        await socket.send_json({"op": "subscribe", "id": "s", "topics": ["presets"]})
        await heard(socket, "snapshot")
        for text, expected in ((good, {"added", "changed"}), (good + "limits: [\n", {"rejected"})):
            (models / "saved.new").write_text(text)
            (models / "saved.new").replace(models / "saved.yaml")
            told = await heard(socket, "preset", name="saved")
            check(told[-1]["change"] in expected, told)
            await client.answer("POST", "/api/models/saved", json=ASKED)


async def submitted(client: Client, **body: Any) -> str:
    job: str = (await client.answer("POST", "/api/hyperpod/deploy", 202, json=body))["job"]["job_id"]
    return job


async def followed(client: Client, job: str, parts: int) -> None:
    """Reads so many parts of a log as it grows, or to its end, and leaves."""
    async with client.http.get(f"{client.url}{JOBS}/{job}/logs", headers={"Accept": SSE}) as answer:
        check(answer.status == 200, answer.status)
        async for line in answer.content:
            parts -= line.startswith(b"data: ")
            if not parts:
                answer.close()
                return


async def ended(client: Client, job: str, expected: str) -> None:
    await client.answer("GET", f"{JOBS}/{job}/logs", headers={"Accept": SSE})  # follows to the end
    told = await client.answer("GET", f"{JOBS}/{job}")
    check(told["job"]["status"] == expected, told)
