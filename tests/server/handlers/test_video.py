"""A video in a request, from the socket to the upstream: contract.md 1."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgpack
import pytest

from pipeline.frames import Frame
from tests.aio import asynchronous
from tests.pipeline.drawn import plain
from tests.pipeline.filmed import number_of, sample
from tests.server.checks import check_error
from tests.serving import Answer, Server, asks, says, serving
from tests.upstream import Upstream

PACKED = {"Content-Type": "application/msgpack"}
VIDEO = base64.b64encode(sample("mp4")).decode()
WATCHES = ["text", "image", "video", "stream"]
PICTURES = [plain(side, side) for side in (5, 6, 7)]
SENTENCE = "These 4 images are frames of one video of 2.0 s, in order, taken at "


def body(*frames: str, **more: Any) -> dict[str, Any]:
    return {"text": "What happens?", "mediaType": "video", "frames": [*frames], **more}


async def packed(server: Server, path: str, value: Any) -> Answer:
    return await server.request("POST", path, data=msgpack.packb(value), headers=PACKED)


def sent(up: Upstream, kind: str = "image_url") -> tuple[list[bytes], str]:
    """The pictures of the last request, and its text."""
    content = up.requests[-1].body["messages"][-1]["content"]
    urls = [part[kind]["url"] for part in content if part["type"] == kind]
    assert [part["type"] for part in content] == [kind] * len(urls) + ["text"]
    return [base64.b64decode(url.partition(",")[2]) for url in urls], content[-1]["text"]


@pytest.mark.parametrize("form", ["base64", "uri", "bytes"])
@asynchronous
async def test_a_file_reaches_a_model_with_eyes_as_pictures_in_order(tmp_path: Path, form: str) -> None:
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url, limits={"frames": 4})}) as server:
        if form == "bytes":
            answer = await packed(server, "/api/models/m", {**body(), "frames": [sample("mp4")]})
        else:
            answer = await server.post("/api/models/m", body("data:video/mp4;base64," * (form == "uri") + VIDEO))
        pictures, text = sent(up)
    numbers = [number_of(Frame(picture, "jpeg", 96, 64)) for picture in pictures]
    assert all(abs(found - wanted) <= 3 for found, wanted in zip(numbers, [5, 15, 25, 35], strict=True))
    assert text.startswith(SENTENCE)
    assert text.endswith("\nWhat happens?")
    told = answer.json
    assert told["request"]["frames_count"] == 1
    assert (told["request"]["media_type"], told["request"]["text"]) == ("video", "What happens?")
    assert told["metadata"]["sent"] == {"text": text, "frames_count": 4}


@asynchronous
async def test_frames_that_the_client_took_itself_arrive_as_they_are_with_the_sentence(tmp_path: Path) -> None:
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url)}) as server:
        answer = await server.post("/api/models/m", body(*[picture.as_base64() for picture in PICTURES]))
        pictures, text = sent(up)
    assert pictures == [picture.data for picture in PICTURES]
    assert text == "These 3 images are frames of one video, in order.\nWhat happens?"
    assert answer.json["request"]["frames_count"] == 3
    assert answer.json["metadata"]["sent"] == {"text": text}


@asynchronous
async def test_a_model_that_takes_video_gets_the_very_bytes_and_nothing_differs(tmp_path: Path) -> None:
    async with Upstream() as up, serving(tmp_path, models={"m": asks(up.base_url, capabilities=WATCHES)}) as server:
        answer = await server.post("/api/models/m", body(VIDEO))
        assert sent(up, "video_url") == ([sample("mp4")], "What happens?")
        url = up.requests[-1].body["messages"][-1]["content"][0]["video_url"]["url"]
        assert url == f"data:video/mp4;base64,{VIDEO}"
    assert "sent" not in answer.json["metadata"]


@asynchronous
async def test_each_of_several_models_gets_what_it_takes(tmp_path: Path) -> None:
    async with Upstream() as up:
        models = {
            "few": asks(up.base_url, "few", limits={"frames": 2}),
            "whole": asks(up.base_url, "whole", capabilities=["text", "video", "stream"]),
            "blind": says("echo", capabilities=["text", "stream"]),
        }
        async with serving(tmp_path, models=models) as server:
            answer = await server.post("/api/multi-inference", body(VIDEO, models=[*models]))
        kinds = {asked.body["model"]: asked.body["messages"][-1]["content"] for asked in up.requests}
    assert [part["type"] for part in kinds["few"]] == ["image_url", "image_url", "text"]
    assert [part["type"] for part in kinds["whole"]] == ["video_url", "text"]
    assert [result["status"] for result in answer.json["results"]] == ["success", "success", "error"]
    assert "takes text alone" in answer.json["results"][2]["error"]


@asynchronous
async def test_what_no_model_could_be_asked_is_400_before_any_call(tmp_path: Path) -> None:
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
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        for fields, words in wrong:
            for path in ("/api/models/m", "/api/stream/m"):
                check_error(await server.post(path, {"text": "hi", **fields}), 400, "invalid_request", words)
        assert server.scripted.calls == 0


@asynchronous
async def test_a_file_that_can_not_be_unpacked_is_400_and_the_next_request_works(tmp_path: Path) -> None:
    broken = base64.b64encode(b"\0\0\1\xba" + bytes(9000)).decode()
    async with serving(tmp_path, models={"m": says("echo")}) as server:
        refused = await server.post("/api/models/m", body(broken))
        check_error(refused, 400, "invalid_request", "frames[0]: the pictures of this MPEG video can't be decoded")
        assert server.scripted.calls == 0
        assert (await server.post("/api/models/m", body(VIDEO))).text.endswith("What happens?")


@asynchronous
async def test_a_fallback_that_takes_pictures_gets_them_where_the_first_took_the_file(tmp_path: Path) -> None:
    async with Upstream() as up:
        watches = says("fail:model_error", capabilities=["text", "video", "stream"], fallback=["sees"])
        stages = ["decode_frames", "fallback", "route_model", "fit_frames", "limit", "invoke", "normalize_envelope"]
        models = {"watches": watches, "sees": asks(up.base_url)}
        async with serving(tmp_path, models=models, stages=stages) as server:
            answer = await server.post("/api/models/watches", body(VIDEO))
        assert len(sent(up)[0]) == 8
    assert answer.json["metadata"]["fallback_from"] == "watches"
