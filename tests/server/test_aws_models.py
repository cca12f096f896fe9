"""The six shipped AWS models together: pictures and videos through each, all side by side, many at once."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.presets import DEFAULT_STAGES
from tests.aio import asynchronous, soon
from tests.aws import Aws
from tests.aws import says as answers
from tests.pipeline.drawn import plain
from tests.pipeline.filmed import sample
from tests.processes import ROOT
from tests.server.checks import check_stream, text_of
from tests.serving import Server, serving

PRESETS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "presets" / "models").glob("*.yaml"))
    if path.stem != "smollm2"
}
EMD = [name for name, preset in PRESETS.items() if preset["provider"] == "emd"]
VIDEO = base64.b64encode(sample("mp4")).decode()


@asynccontextmanager
async def aws_models(folder: Path) -> AsyncIterator[tuple[Server, Aws]]:
    """The shipped presets and pipeline; the four EMD models are deployed."""
    async with Aws(region="us-east-1") as aws:
        await aws.bootstrap_emd()
        for name in EMD:
            await aws.deploy_emd(PRESETS[name]["model"])
        with pytest.MonkeyPatch.context() as patch:
            aws.apply(patch)
            async with serving(folder, models=PRESETS, stages=list(DEFAULT_STAGES)) as server:
                yield server, aws
                await server.ended()
                await soon(aws.idle())


def media(body: Any) -> list[str]:
    """What a request to a model holds beside text, by Converse's names or OpenAI's."""
    content = body["messages"][0]["content"]
    return [kind for block in content for kind in ("image", "video", "image_url", "video_url") if kind in block]


@asynchronous
async def test_all_six_answer_side_by_side_about_a_picture(tmp_path: Path) -> None:
    async with aws_models(tmp_path) as (server, aws):
        aws.answer = answers("Hello", " world")
        body = {"text": "What is this?", "frames": [plain(8, 8).as_base64()], "models": [*PRESETS]}
        told = (await server.post("/api/multi-inference", body)).json["results"]
        assert [(one["model"], one["status"], text_of(one)) for one in told] == [
            (name, "success", "Hello world") for name in PRESETS
        ]
        asked = [one for one in aws.requests if one.operation.startswith(("Converse", "Invoke"))]
        assert sorted(kind for one in asked for kind in media(one.body)) == ["image"] * 2 + ["image_url"] * 4


@pytest.mark.parametrize("name", PRESETS)
@asynchronous
async def test_a_video_goes_whole_to_nova_and_as_frames_to_the_others(tmp_path: Path, name: str) -> None:
    async with aws_models(tmp_path) as (server, aws):
        aws.answer = answers("Hello", " world")
        body = {"text": "What happens?", "frames": [VIDEO], "mediaType": "video"}
        answer = await server.post(f"/api/models/{name}", body)
        assert answer.status == 200, answer.content
        (asked,) = [one for one in aws.requests if one.operation.startswith(("Converse", "Invoke"))]
        frames = min(8, PRESETS[name]["limits"]["frames"])
        expected = {"nova": ["video"], "claude4": ["image"] * frames}.get(name, ["image_url"] * frames)
        assert media(asked.body) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["claude4", "gemma-3-4b"])
@asynchronous
async def test_200_streams_of_200_chunks_come_whole_while_a_third_of_the_clients_leave(
    tmp_path: Path, name: str
) -> None:
    words = [f"w{number} " for number in range(200)]
    async with aws_models(tmp_path) as (server, aws):
        aws.answer = answers(*words)

        async def ask(number: int) -> None:
            async with server.live(f"/api/stream/{name}", {"text": "hi"}) as live:
                if number % 3 == 0:
                    await live.next()
                else:
                    assert text_of(check_stream(await live.rest())[name]) == "".join(words)

        await asyncio.gather(*(ask(number) for number in range(200)))
        await soon(aws.idle())
        assert aws.streams == 0
