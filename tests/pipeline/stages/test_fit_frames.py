"""fit_frames: what is too large is made smaller, what is too much is refused, and the rest is not touched."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from PIL import Image

from pipeline.errors import InvalidRequest
from pipeline.frames import Frame
from pipeline.messages import Events, Inference, InferenceRequest, Message, Route
from pipeline.presets import Capability, Limits, ModelPreset
from pipeline.stage import Context
from pipeline.stages.fit_frames import FitFrames, create
from tests.aio import asynchronous
from tests.pipeline.drawn import bomb, broken, noise, opened, plain, saved


@asynccontextmanager
async def fit_frames(**options: Any) -> AsyncIterator[FitFrames]:
    stage = create(options, Context())
    try:
        yield stage
    finally:
        await stage.close()


def asking(*frames: Frame, capabilities: tuple[Capability, ...] = ("text", "image"), **limits: Any) -> Inference:
    preset = ModelPreset("p", "m", capabilities=capabilities, limits=Limits(**limits))
    messages = (Message("user", ("What is it?", *frames)),)
    request = InferenceRequest(messages)
    return Inference(request, "tiny", "tiny", {}, messages, request.parameters, Route("tiny", preset))


async def through(stage: FitFrames, inference: Inference) -> Inference:
    """What the stage hands on."""
    handed_on: list[Inference] = []

    async def proceed(inference: Inference) -> Events:
        handed_on.append(inference)
        return None  # type: ignore[return-value]

    await stage(inference, proceed)
    return handed_on[0]


async def fitted(frame: Frame, **limits: Any) -> Frame:
    async with fit_frames() as stage:
        return (await through(stage, asking(frame, **limits))).messages[-1].frames[0]


@asynchronous
async def test_what_fits_is_handed_on_untouched_and_no_worker_is_started() -> None:
    async with fit_frames() as stage:
        asked = asking(plain(100, 100))
        assert await through(stage, asked) is asked
        assert [worker.pid for worker in stage._workers] == [None, None]


@asynchronous
async def test_a_picture_that_is_too_large_is_made_smaller_and_keeps_its_kind_and_shape() -> None:
    for kind in ("png", "jpeg", "webp"):
        small = await fitted(plain(800, 400, kind), frame_pixels=20_000)
        assert (small.kind, small.width, small.height) == (kind, 200, 100)
        assert opened(small).size == (200, 100)


@asynchronous
async def test_only_the_frame_that_is_too_large_is_changed_and_the_order_stays() -> None:
    one, large, three = plain(10, 10), plain(500, 500), plain(20, 20)
    asked = asking(one, large, three, frame_pixels=10_000)
    async with fit_frames() as stage:
        message = (await through(stage, asked)).messages[-1]
    assert message.parts[:2] == ("What is it?", one)
    assert message.frames[1].pixels == 10_000
    assert message.frames[2] is three
    assert asked.messages[-1].frames[1] is large


@asynchronous
async def test_a_picture_of_too_many_bytes_is_made_a_jpeg_that_fits() -> None:
    large = noise(300, 300)
    small = await fitted(large, frame_bytes=40_000)
    assert len(large.data) > 200_000
    assert len(small.data) <= 40_000
    assert (small.kind, opened(small).format) == ("jpeg", "JPEG")


@asynchronous
async def test_a_picture_that_no_quality_makes_fit_is_made_smaller_still() -> None:
    small = await fitted(noise(300, 300), frame_bytes=4_000)
    assert len(small.data) <= 4_000
    assert small.width == small.height < 300


@asynchronous
async def test_a_picture_that_can_not_fit_at_all_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"frames\[0\]: this picture can't be made to fit 100 bytes"):
        await fitted(noise(50, 50), frame_bytes=100)


@asynchronous
async def test_a_photo_that_lies_on_its_side_is_stood_up_and_its_metadata_stays_behind() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn right
    exif[0x010E] = "a private description"
    small = await fitted(plain(400, 200, "jpeg", exif=exif), frame_pixels=20_000)
    assert (small.width, small.height) == (100, 200)
    assert not opened(small).getexif()


@asynchronous
async def test_of_a_gif_the_first_frame_is_taken_as_a_png() -> None:
    red, blue = (Image.new("RGB", (100, 100), colour) for colour in ("red", "blue"))
    small = await fitted(saved(red, "gif", save_all=True, append_images=[blue]), frame_pixels=100)
    assert (small.kind, small.width, small.height) == ("png", 10, 10)
    assert opened(small).convert("RGB").getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@asynchronous
async def test_every_kind_of_pixels_can_be_made_smaller(mode: str) -> None:
    grey = 40_000 if mode == "I;16" else None
    image = Image.new(mode, (100, 100), grey) if grey else Image.new("L", (100, 100), 156).convert(mode)
    small = await fitted(saved(image), frame_pixels=100)
    assert small.pixels == 100
    if mode != "1":  # black and white dots, whose mean is only about this grey
        assert opened(small).convert("L").getpixel((5, 5)) == 156


@asynchronous
async def test_what_is_transparent_is_white_where_it_has_to_become_a_jpeg() -> None:
    image = Image.frombytes("RGBA", (200, 200), os.urandom(160_000))
    image.putalpha(0)
    small = await fitted(saved(image), frame_bytes=5_000)
    assert (small.kind, opened(small).getpixel((100, 100))) == ("jpeg", (255, 255, 255))


@asynchronous
async def test_a_line_of_one_pixel_keeps_within_the_limit() -> None:
    small = await fitted(plain(5_000, 1), frame_pixels=10)
    assert (small.width, small.height) == (10, 1)


@asynchronous
async def test_more_frames_than_the_model_takes_are_refused_never_dropped() -> None:
    async with fit_frames() as stage:
        with pytest.raises(InvalidRequest, match="frames: tiny takes at most 2 in one request, and 3 came"):
            await through(stage, asking(*[plain(2, 2)] * 3, frames=2))


@asynchronous
async def test_a_model_without_eyes_refuses_frames_and_takes_text() -> None:
    async with fit_frames() as stage:
        with pytest.raises(InvalidRequest, match="frames: tiny takes text alone"):
            await through(stage, asking(plain(2, 2), capabilities=("text",)))
        text = asking(capabilities=("text",))
        assert await through(stage, text) is text


@asynchronous
async def test_pixels_that_can_not_be_decoded_are_the_requests_fault() -> None:
    with pytest.raises(InvalidRequest, match=r"frames\[0\]: the pixels of this PNG picture can't be decoded"):
        await fitted(broken(), frame_pixels=100)


@asynchronous
async def test_a_decompression_bomb_hits_the_memory_limit_and_costs_its_request_only() -> None:
    huge = bomb(42_000)  # 1.8 GB of pixels in 2 MB
    assert len(huge.data) < 2_000_000
    async with fit_frames(workers=1) as stage:
        with pytest.raises(InvalidRequest, match="could not be unpacked within the memory"):
            await through(stage, asking(huge))
        assert await through(stage, asking(plain(100, 100), frame_pixels=100))


@asynchronous
async def test_a_picture_that_takes_too_long_is_given_up() -> None:
    async with fit_frames(seconds=0.001, workers=1) as stage:
        with pytest.raises(InvalidRequest, match=r"could not be unpacked within 0\.001 s"):
            await through(stage, asking(noise(1000, 1000), frame_pixels=100))


@asynchronous
async def test_a_worker_that_dies_costs_one_request_and_the_next_gets_a_new_one() -> None:
    async with fit_frames(workers=1) as stage:
        large = asking(plain(100, 100), frame_pixels=100)
        await through(stage, large)
        (worker,) = stage._workers
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(InvalidRequest, match="could not be unpacked"):
            await through(stage, large)
        assert (await through(stage, large)).messages[-1].frames[0].pixels == 100


@asynchronous
async def test_close_ends_its_workers() -> None:
    async with fit_frames() as stage:
        await through(stage, asking(plain(100, 100), frame_pixels=100))
        assert any(worker.pid for worker in stage._workers)
    assert not any(worker.pid for worker in stage._workers)


@pytest.mark.parametrize("options", [{"second": 1}, {"seconds": 0}, {"workers": 0}])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"second|workers"):
        create(options, Context())
