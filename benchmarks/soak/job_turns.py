"""Turns of users that run jobs, follow their logs, and save presets."""

from pathlib import Path
from typing import Any

from benchmarks.soak.client import REQUEST, SSE, Client, check, receive_until

JOBS_PATH = "/api/hyperpod/jobs"


async def run_job(client: Client) -> None:
    """Run a job that prints for some seconds; every third job would never end, and is cancelled."""
    preset, expected = ("stays", "cancelled") if client.turns["ran"] % 3 == 2 else ("talks", "succeeded")
    client.job_id = await submit(client, preset=preset, dry_run=False)
    if preset == "stays":
        await read_log(client, client.job_id, count=50)
        await client.request("POST", f"{JOBS_PATH}/{client.job_id}/cancel", 202)
    await wait_for_end(client, client.job_id, expected)


async def run_dry_run(client: Client) -> None:
    await wait_for_end(client, await submit(client, preset="small", dry_run=True), "succeeded")


async def follow_log(client: Client) -> None:
    if client.job_id:
        await read_log(client, client.job_id, count=20)


async def follow_log_on_socket(client: Client) -> None:
    if client.job_id:
        async with client.socket() as socket:
            await socket.send_json({"op": "tail", "id": "a", "job_id": client.job_id, "lines": 5})
            await receive_until(socket, "log")


async def save_preset(client: Client, models: Path) -> None:
    """Save a valid preset, then an invalid one: the feed reports both, and the valid one stays in force."""
    valid = (models / "plain.yaml").read_text() + f"limits: {{max_tokens: {client.rng.randrange(100, 10**9)}}}\n"
    async with client.socket() as socket:
        await socket.send_json({"op": "subscribe", "id": "s", "topics": ["presets"]})
        await receive_until(socket, "snapshot")
        for text, expected in ((valid, {"added", "changed"}), (valid + "limits: [\n", {"rejected"})):
            (models / "saved.new").write_text(text)
            (models / "saved.new").replace(models / "saved.yaml")
            messages = await receive_until(socket, "preset", name="saved")
            check(messages[-1]["change"] in expected, messages)
            await client.request("POST", "/api/models/saved", json=REQUEST)


async def submit(client: Client, **body: Any) -> str:
    job_id: str = (await client.request("POST", "/api/hyperpod/deploy", 202, json=body))["job"]["job_id"]
    return job_id


async def read_log(client: Client, job_id: str, count: int) -> None:
    """Read `count` messages of a live log, or all of it, and disconnect."""
    async with client.http.get(f"{client.url}{JOBS_PATH}/{job_id}/logs", headers={"Accept": SSE}) as response:
        check(response.status == 200, response.status)
        async for line in response.content:
            count -= line.startswith(b"data: ")
            if not count:
                response.close()
                return


async def wait_for_end(client: Client, job_id: str, expected: str) -> None:
    await client.request("GET", f"{JOBS_PATH}/{job_id}/logs", headers={"Accept": SSE})  # follows to the end
    body = await client.request("GET", f"{JOBS_PATH}/{job_id}")
    check(body["job"]["status"] == expected, body)
