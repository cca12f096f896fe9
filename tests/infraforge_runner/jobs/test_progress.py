"""A job's progress on the feed while it runs."""

from __future__ import annotations

from pathlib import Path

from tests.async_tests import async_test
from tests.jobs import submit, write_hyperpod_preset
from tests.running_server import running_server
from tests.sockets import connect_websocket

EVENT = "s | {}/3 | 7:08:02 PM | CREATE_COMPLETE | AWS::EC2::VPC | Part"


@async_test
async def test_last_progress_before_long_silence_is_published(tmp_path: Path) -> None:
    lines = "; sleep 0.02; ".join(f"echo '{EVENT.format(done)}'" for done in range(3))
    go = tmp_path / "go"
    write_hyperpod_preset(tmp_path / "presets", deploy=f"{lines}; until [ -e {go} ]; do sleep 0.05; done")
    async with running_server(tmp_path) as server, connect_websocket(server) as client:
        await client.send(op="subscribe", id="f", topics=["jobs"])
        await submit(server)
        while (message := await client.next_event("f")).get("progress") != {"done": 2, "total": 3}:
            assert message.get("status") in (None, "queued", "running")
        go.touch()
        while (await client.next_event("f")).get("status") != "succeeded":
            pass
