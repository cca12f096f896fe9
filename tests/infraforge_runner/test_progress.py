"""How far a job is, as clients are told it while it runs."""

from __future__ import annotations

from pathlib import Path

from tests.aio import asynchronous
from tests.jobs import submit, write_hyperpod
from tests.serving import serving
from tests.sockets import talking

EVENT = "s | {}/3 | 7:08:02 PM | CREATE_COMPLETE | AWS::EC2::VPC | Part"


@asynchronous
async def test_the_last_word_before_a_long_silence_is_told(tmp_path: Path) -> None:
    lines = "; sleep 0.02; ".join(f"echo '{EVENT.format(done)}'" for done in range(3))
    go = tmp_path / "go"
    write_hyperpod(tmp_path / "presets", deploy=f"{lines}; until [ -e {go} ]; do sleep 0.05; done")
    async with serving(tmp_path) as server, talking(server) as talk:
        await talk.say(op="subscribe", id="f", topics=["jobs"])
        await submit(server)
        while (message := await talk.next("f")).get("progress") != {"done": 2, "total": 3}:
            assert message.get("status") in (None, "queued", "running")
        go.touch()
        while (await talk.next("f")).get("status") != "succeeded":
            pass
