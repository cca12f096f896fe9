"""The six shipped AWS models: pictures and videos, all in one request, many concurrent streams."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.presets.pipeline import DEFAULT_STAGES
from tests.async_tests import async_test, within_deadline
from tests.aws import Aws, text_response
from tests.pipeline.media.make_pictures import plain_picture
from tests.pipeline.media.make_videos import sample_video
from tests.processes import ROOT
from tests.running_server import RunningServer, running_server
from tests.server.checks import check_stream, text_of

PRESETS = {
    path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "presets" / "models").glob("*.yaml"))
    if path.stem != "smollm2"
}
EMD_MODELS = [name for name, preset in PRESETS.items() if preset["provider"] == "emd"]
VIDEO = base64.b64encode(sample_video("mp4")).decode()


@asynccontextmanager
async def aws_models(folder: Path) -> AsyncIterator[tuple[RunningServer, Aws]]:
    """The shipped presets and pipeline; the four EMD models are deployed."""
    async with Aws(region="us-east-1") as aws:
        await aws.bootstrap_emd()
        for name in EMD_MODELS:
            await aws.deploy_emd(PRESETS[name]["model"])
        with pytest.MonkeyPatch.context() as patch:
            aws.apply_environ(patch)
            async with running_server(folder, models=PRESETS, stages=list(DEFAULT_STAGES)) as server:
                yield server, aws
                await server.wait_until_idle()
                await within_deadline(aws.wait_until_idle())


def media_kinds(body: Any) -> list[str]:
    """The kinds of media in a request to a model, by the names of Converse or OpenAI."""
    content = body["messages"][0]["content"]
    return [kind for block in content for kind in ("image", "video", "image_url", "video_url") if kind in block]


@async_test
async def test_all_shipped_aws_models_answer_about_picture(tmp_path: Path) -> None:
    async with aws_models(tmp_path) as (server, aws):
        aws.response = text_response("Hello", " world")
        body = {"text": "What is this?", "frames": [plain_picture(8, 8).as_base64()], "models": [*PRESETS]}
        results = (await server.post("/api/multi-inference", body)).json["results"]
        assert [(item["model"], item["status"], text_of(item)) for item in results] == [
            (name, "success", "Hello world") for name in PRESETS
        ]
        requests = [item for item in aws.requests if item.operation.startswith(("Converse", "Invoke"))]
        assert sorted(kind for item in requests for kind in media_kinds(item.body)) == ["image"] * 2 + ["image_url"] * 4


@pytest.mark.parametrize("name", PRESETS)
@async_test
async def test_video_is_sent_whole_to_nova_and_as_frames_to_others(tmp_path: Path, name: str) -> None:
    async with aws_models(tmp_path) as (server, aws):
        aws.response = text_response("Hello", " world")
        body = {"text": "What happens?", "frames": [VIDEO], "mediaType": "video"}
        response = await server.post(f"/api/models/{name}", body)
        assert response.status == 200, response.content
        (requests,) = [item for item in aws.requests if item.operation.startswith(("Converse", "Invoke"))]
        frames = min(8, PRESETS[name]["limits"]["frames"])
        expected = {"nova": ["video"], "claude4": ["image"] * frames}.get(name, ["image_url"] * frames)
        assert media_kinds(requests.body) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["claude4", "gemma-3-4b"])
@async_test
async def test_200_concurrent_streams_are_whole_while_a_third_of_clients_disconnect(tmp_path: Path, name: str) -> None:
    chunks = [f"w{number} " for number in range(200)]
    async with aws_models(tmp_path) as (server, aws):
        aws.response = text_response(*chunks)

        async def ask(number: int) -> None:
            async with server.open_stream(f"/api/stream/{name}", {"text": "hi"}) as live:
                if number % 3 == 0:
                    await live.next_event()
                else:
                    assert text_of(check_stream(await live.remaining_events())[name]) == "".join(chunks)

        await asyncio.gather(*(ask(number) for number in range(200)))
        await within_deadline(aws.wait_until_idle())
        assert aws.open_streams == 0
