"""fit_frames: oversized pictures are shrunk, too many are rejected, and everything else is unchanged."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from PIL import Image

from pipeline.errors import InvalidRequest
from pipeline.media.frames import Frame
from pipeline.messages import EventStream, Inference, InferenceRequest, Message, ModelTarget
from pipeline.presets.models import Capability, Limits, ModelPreset
from pipeline.stage import Context
from pipeline.stages.fit_frames import FitFrames
from tests.async_tests import async_test
from tests.pipeline.factories import create_stage
from tests.pipeline.media.make_pictures import (
    broken_picture,
    decompression_bomb,
    noise_picture,
    open_picture,
    plain_picture,
    save_picture,
)


@asynccontextmanager
async def fit_frames_stage(**options: Any) -> AsyncIterator[FitFrames]:
    stage = create_stage("fit_frames", options)
    assert isinstance(stage, FitFrames)
    try:
        yield stage
    finally:
        await stage.close()


def make_image_inference(
    *frames: Frame, capabilities: tuple[Capability, ...] = ("text", "image"), **limits: Any
) -> Inference:
    preset = ModelPreset("p", "m", capabilities=capabilities, limits=Limits(**limits))
    messages = (Message("user", ("What is it?", *frames)),)
    request = InferenceRequest(messages)
    return Inference(request, "tiny", "tiny", {}, messages, request.parameters, ModelTarget("tiny", preset))


async def run_stage(stage: FitFrames, inference: Inference) -> Inference:
    """The inference with which the stage proceeds."""
    inferences: list[Inference] = []

    async def proceed(inference: Inference) -> EventStream:
        inferences.append(inference)
        return None  # type: ignore[return-value]

    await stage(inference, proceed)
    return inferences[0]


async def fit_frame(frame: Frame, **limits: Any) -> Frame:
    async with fit_frames_stage() as stage:
        return (await run_stage(stage, make_image_inference(frame, **limits))).messages[-1].frames[0]


@async_test
async def test_picture_within_limits_is_unchanged_and_starts_no_helper() -> None:
    async with fit_frames_stage() as stage:
        inference = make_image_inference(plain_picture(100, 100))
        assert await run_stage(stage, inference) is inference
        assert [helper.pid for helper in stage._picture_helpers] == [None, None]


@async_test
async def test_picture_with_too_many_pixels_is_shrunk_with_same_kind_and_aspect_ratio() -> None:
    for kind in ("png", "jpeg", "webp"):
        shrunk = await fit_frame(plain_picture(800, 400, kind), frame_pixels=20_000)
        assert (shrunk.kind, shrunk.width, shrunk.height) == (kind, 200, 100)
        assert open_picture(shrunk).size == (200, 100)


@async_test
async def test_only_oversized_frames_change_and_order_is_kept() -> None:
    first, second, third = plain_picture(10, 10), plain_picture(500, 500), plain_picture(20, 20)
    inference = make_image_inference(first, second, third, frame_pixels=10_000)
    async with fit_frames_stage() as stage:
        message = (await run_stage(stage, inference)).messages[-1]
    assert message.parts[:2] == ("What is it?", first)
    assert message.frames[1].pixels == 10_000
    assert message.frames[2] is third
    assert inference.messages[-1].frames[1] is second


@async_test
async def test_picture_with_too_many_bytes_becomes_a_jpeg_within_the_limit() -> None:
    large_picture = noise_picture(300, 300)
    shrunk = await fit_frame(large_picture, frame_bytes=40_000)
    assert len(large_picture.data) > 200_000
    assert len(shrunk.data) <= 40_000
    assert (shrunk.kind, open_picture(shrunk).format) == ("jpeg", "JPEG")


@async_test
async def test_picture_is_shrunk_when_no_jpeg_quality_fits() -> None:
    shrunk = await fit_frame(noise_picture(300, 300), frame_bytes=4_000)
    assert len(shrunk.data) <= 4_000
    assert shrunk.width == shrunk.height < 300


@async_test
async def test_picture_that_can_never_fit_is_rejected() -> None:
    with pytest.raises(InvalidRequest, match=r"frames\[0\]: this picture can't be made to fit 100 bytes"):
        await fit_frame(noise_picture(50, 50), frame_bytes=100)


@async_test
async def test_shrunk_photo_is_rotated_upright_and_loses_its_metadata() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn right
    exif[0x010E] = "a private description"
    shrunk = await fit_frame(plain_picture(400, 200, "jpeg", exif=exif), frame_pixels=20_000)
    assert (shrunk.width, shrunk.height) == (100, 200)
    assert not open_picture(shrunk).getexif()


@async_test
async def test_shrunk_gif_becomes_a_png_of_its_first_frame() -> None:
    red, blue = (Image.new("RGB", (100, 100), colour) for colour in ("red", "blue"))
    shrunk = await fit_frame(save_picture(red, "gif", save_all=True, append_images=[blue]), frame_pixels=100)
    assert (shrunk.kind, shrunk.width, shrunk.height) == ("png", 10, 10)
    assert open_picture(shrunk).convert("RGB").getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@async_test
async def test_every_pixel_mode_can_be_shrunk(mode: str) -> None:
    grey = 40_000 if mode == "I;16" else None
    image = Image.new(mode, (100, 100), grey) if grey else Image.new("L", (100, 100), 156).convert(mode)
    shrunk = await fit_frame(save_picture(image), frame_pixels=100)
    assert shrunk.pixels == 100
    if mode != "1":  # dithered black and white, whose mean is only near this grey
        assert open_picture(shrunk).convert("L").getpixel((5, 5)) == 156


@async_test
async def test_transparent_pixels_become_white_in_a_jpeg() -> None:
    image = Image.frombytes("RGBA", (200, 200), os.urandom(160_000))
    image.putalpha(0)
    shrunk = await fit_frame(save_picture(image), frame_bytes=5_000)
    assert (shrunk.kind, open_picture(shrunk).getpixel((100, 100))) == ("jpeg", (255, 255, 255))


@async_test
async def test_picture_one_pixel_high_is_shrunk_to_the_pixel_limit() -> None:
    shrunk = await fit_frame(plain_picture(5_000, 1), frame_pixels=10)
    assert (shrunk.width, shrunk.height) == (10, 1)


@async_test
async def test_too_many_frames_are_rejected_and_not_dropped() -> None:
    async with fit_frames_stage() as stage:
        with pytest.raises(InvalidRequest, match="frames: tiny takes at most 2 in one request, and 3 came"):
            await run_stage(stage, make_image_inference(*[plain_picture(2, 2)] * 3, frames=2))


@async_test
async def test_text_model_rejects_frames_and_accepts_text() -> None:
    async with fit_frames_stage() as stage:
        with pytest.raises(InvalidRequest, match="frames: tiny takes text alone"):
            await run_stage(stage, make_image_inference(plain_picture(2, 2), capabilities=("text",)))
        text = make_image_inference(capabilities=("text",))
        assert await run_stage(stage, text) is text


@async_test
async def test_undecodable_pixels_are_an_invalid_request() -> None:
    with pytest.raises(InvalidRequest, match=r"frames\[0\]: the pixels of this PNG picture can't be decoded"):
        await fit_frame(broken_picture(), frame_pixels=100)


@async_test
async def test_decompression_bomb_hits_the_memory_limit_and_the_next_request_succeeds() -> None:
    bomb = decompression_bomb(42_000)  # 1.8 GB of pixels in 2 MB
    assert len(bomb.data) < 2_000_000
    async with fit_frames_stage(workers=1) as stage:
        with pytest.raises(InvalidRequest, match="could not be unpacked within the memory"):
            await run_stage(stage, make_image_inference(bomb))
        assert await run_stage(stage, make_image_inference(plain_picture(100, 100), frame_pixels=100))


@async_test
async def test_picture_that_exceeds_the_timeout_is_rejected() -> None:
    async with fit_frames_stage(seconds=0.001, workers=1) as stage:
        with pytest.raises(InvalidRequest, match=r"could not be unpacked within 0\.001 s"):
            await run_stage(stage, make_image_inference(noise_picture(1000, 1000), frame_pixels=100))


@async_test
async def test_killed_helper_fails_one_request_and_the_next_starts_a_new_helper() -> None:
    async with fit_frames_stage(workers=1) as stage:
        inference = make_image_inference(plain_picture(100, 100), frame_pixels=100)
        await run_stage(stage, inference)
        (helper,) = stage._picture_helpers
        assert helper.pid is not None
        os.kill(helper.pid, signal.SIGKILL)
        with pytest.raises(InvalidRequest, match="could not be unpacked"):
            await run_stage(stage, inference)
        assert (await run_stage(stage, inference)).messages[-1].frames[0].pixels == 100


@async_test
async def test_close_ends_the_helpers() -> None:
    async with fit_frames_stage() as stage:
        await run_stage(stage, make_image_inference(plain_picture(100, 100), frame_pixels=100))
        assert any(helper.pid for helper in stage._picture_helpers)
    assert not any(helper.pid for helper in stage._picture_helpers)


@pytest.mark.parametrize("options", [{"second": 1}, {"seconds": 0}, {"workers": 0}])
def test_invalid_options_are_rejected(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"second|workers"):
        create_stage("fit_frames", options, Context())
