"""A video in a request, from the socket to the upstream: contract.md 1."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgpack
import pytest

from pipeline.media.frames import Frame
from tests.async_tests import async_test
from tests.pipeline.media.make_pictures import plain_picture
from tests.pipeline.media.make_videos import read_frame_number, sample_video
from tests.running_server import HttpResponse, RunningServer, running_server, scripted_model, upstream_model
from tests.server.checks import check_error
from tests.upstream import Upstream

PACKED = {"Content-Type": "application/msgpack"}
VIDEO = base64.b64encode(sample_video("mp4")).decode()
VIDEO_CAPABILITIES = ["text", "image", "video", "stream"]
PICTURES = [plain_picture(side, side) for side in (5, 6, 7)]
SENTENCE = "These 4 images are frames of one video of 2.0 s, in order, taken at "


def video_body(*frames: str, **more: Any) -> dict[str, Any]:
    return {"text": "What happens?", "mediaType": "video", "frames": [*frames], **more}


async def post_packed(server: RunningServer, path: str, value: Any) -> HttpResponse:
    return await server.request("POST", path, data=msgpack.packb(value), headers=PACKED)


def sent_media(up: Upstream, kind: str = "image_url") -> tuple[list[bytes], str]:
    """The pictures of the last request, and its text."""
    content = up.requests[-1].body["messages"][-1]["content"]
    urls = [part[kind]["url"] for part in content if part["type"] == kind]
    assert [part["type"] for part in content] == [kind] * len(urls) + ["text"]
    return [base64.b64decode(url.partition(",")[2]) for url in urls], content[-1]["text"]


@pytest.mark.parametrize("form", ["base64", "uri", "bytes"])
@async_test
async def test_video_reaches_image_model_as_frames_in_order(tmp_path: Path, form: str) -> None:
    async with (
        Upstream() as up,
        running_server(tmp_path, models={"m": upstream_model(up.base_url, limits={"frames": 4})}) as server,
    ):
        if form == "bytes":
            answer = await post_packed(server, "/api/models/m", {**video_body(), "frames": [sample_video("mp4")]})
        else:
            answer = await server.post("/api/models/m", video_body("data:video/mp4;base64," * (form == "uri") + VIDEO))
        pictures, text = sent_media(up)
    numbers = [read_frame_number(Frame(picture, "jpeg", 96, 64)) for picture in pictures]
    assert all(abs(number - expected) <= 3 for number, expected in zip(numbers, [5, 15, 25, 35], strict=True))
    assert text.startswith(SENTENCE)
    assert text.endswith("\nWhat happens?")
    envelope = answer.json
    assert envelope["request"]["frames_count"] == 1
    assert (envelope["request"]["media_type"], envelope["request"]["text"]) == ("video", "What happens?")
    assert envelope["metadata"]["sent"] == {"text": text, "frames_count": 4}


@async_test
async def test_video_frames_of_client_arrive_unchanged(tmp_path: Path) -> None:
    async with Upstream() as up, running_server(tmp_path, models={"m": upstream_model(up.base_url)}) as server:
        answer = await server.post("/api/models/m", video_body(*[picture.as_base64() for picture in PICTURES]))
        pictures, text = sent_media(up)
    assert pictures == [picture.data for picture in PICTURES]
    assert text == "These 3 images are frames of one video, in order.\nWhat happens?"
    assert answer.json["request"]["frames_count"] == 3
    assert answer.json["metadata"]["sent"] == {"text": text}


@async_test
async def test_video_model_gets_original_bytes(tmp_path: Path) -> None:
    async with (
        Upstream() as up,
        running_server(tmp_path, models={"m": upstream_model(up.base_url, capabilities=VIDEO_CAPABILITIES)}) as server,
    ):
        answer = await server.post("/api/models/m", video_body(VIDEO))
        assert sent_media(up, "video_url") == ([sample_video("mp4")], "What happens?")
        url = up.requests[-1].body["messages"][-1]["content"][0]["video_url"]["url"]
        assert url == f"data:video/mp4;base64,{VIDEO}"
    assert "sent" not in answer.json["metadata"]


@async_test
async def test_video_each_model_gets_what_it_supports(tmp_path: Path) -> None:
    async with Upstream() as up:
        models = {
            "few": upstream_model(up.base_url, "few", limits={"frames": 2}),
            "whole": upstream_model(up.base_url, "whole", capabilities=["text", "video", "stream"]),
            "blind": scripted_model("echo", capabilities=["text", "stream"]),
        }
        async with running_server(tmp_path, models=models) as server:
            answer = await server.post("/api/multi-inference", video_body(VIDEO, models=[*models]))
        kinds = {
            upstream_request.body["model"]: upstream_request.body["messages"][-1]["content"]
            for upstream_request in up.requests
        }
    assert [part["type"] for part in kinds["few"]] == ["image_url", "image_url", "text"]
    assert [part["type"] for part in kinds["whole"]] == ["video_url", "text"]
    assert [result["status"] for result in answer.json["results"]] == ["success", "success", "error"]
    assert "takes text alone" in answer.json["results"][2]["error"]


@async_test
async def test_video_invalid_is_400_before_any_call(tmp_path: Path) -> None:
    picture = PICTURES[0].as_base64()
    wrong: list[tuple[dict[str, Any], str]] = [
        (
            {"frames": [VIDEO], "mediaType": "image"},
            'frames[0]: this is a video (MP4), not a picture; set mediaType to "v',
        ),
        ({"media": [VIDEO]}, "media[0]: this is a video"),
        ({"frames": [VIDEO, VIDEO], "mediaType": "video"}, "frames: expected either one whole video file"),
        ({"frames": [picture, VIDEO], "mediaType": "video"}, "frames: expected either one whole video file"),
        ({"frames": [VIDEO[: len(VIDEO) // 8 * 4]], "mediaType": "video"}, "frames[0]: this MP4 video is cut off"),
        (
            {"frames": ["aGVsbG8="], "mediaType": "video"},
            "frames[0]: expected a PNG, JPEG, GIF or WebP picture, or a video",
        ),
    ]
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        for fields, words in wrong:
            for path in ("/api/models/m", "/api/stream/m"):
                check_error(await server.post(path, {"text": "hi", **fields}), 400, "invalid_request", words)
        assert server.scripted.calls == 0


@async_test
async def test_video_undecodable_is_400_and_next_request_works(tmp_path: Path) -> None:
    broken = base64.b64encode(b"\0\0\1\xba" + bytes(9000)).decode()
    async with running_server(tmp_path, models={"m": scripted_model("echo")}) as server:
        refused = await server.post("/api/models/m", video_body(broken))
        check_error(refused, 400, "invalid_request", "frames[0]: the pictures of this MPEG video can't be decoded")
        assert server.scripted.calls == 0
        assert (await server.post("/api/models/m", video_body(VIDEO))).text.endswith("What happens?")


@async_test
async def test_video_fallback_to_image_model_gets_frames(tmp_path: Path) -> None:
    async with Upstream() as up:
        watches = scripted_model("fail:model_error", capabilities=["text", "video", "stream"], fallback=["sees"])
        stages = ["decode_frames", "fallback", "route_model", "fit_frames", "limit", "invoke", "normalize_envelope"]
        models = {"watches": watches, "sees": upstream_model(up.base_url)}
        async with running_server(tmp_path, models=models, stages=stages) as server:
            answer = await server.post("/api/models/watches", video_body(VIDEO))
        assert len(sent_media(up)[0]) == 8
    assert answer.json["metadata"]["fallback_from"] == "watches"
