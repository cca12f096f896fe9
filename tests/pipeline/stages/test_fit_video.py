"""fit_frames with videos: a video model gets the file, every other model gets frames of it and a note."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import Any

import pytest

from pipeline.errors import InvalidRequest, Unavailable
from pipeline.media import sampling
from pipeline.media.frames import EncodedFrame, Frame, Video
from pipeline.messages import Inference, Message
from pipeline.presets.models import Capability
from pipeline.stage import Context
from tests.async_tests import async_test
from tests.pipeline.factories import create_stage
from tests.pipeline.media.make_pictures import noise_picture, plain_picture
from tests.pipeline.media.make_videos import audio_only, make_video, read_frame_number, sample_video
from tests.pipeline.stages.test_fit_frames import fit_frames_stage, make_image_inference, run_stage

IMAGE_MODEL: tuple[Capability, ...] = ("text", "image")
VIDEO_MODEL: tuple[Capability, ...] = ("text", "image", "video")


def decode_video(data: bytes) -> Video:
    decoded = EncodedFrame(data, "frames[0]").decode()
    assert isinstance(decoded, Video)
    return decoded


def make_video_inference(*media: Frame | Video, text: str = "What happens?", **settings: Any) -> Inference:
    """A request with mediaType video."""
    inference = make_image_inference(**settings)
    messages = (Message("user", (*media, text)),)
    request = replace(inference.request, messages=messages, media_type="video")
    return replace(inference, request=request, messages=messages)


async def fit_message(inference: Inference, **options: Any) -> Message:
    async with fit_frames_stage(**options) as stage:
        return (await run_stage(stage, inference)).messages[-1]


@async_test
async def test_video_model_gets_the_file_unchanged_and_starts_no_helper() -> None:
    inference = make_video_inference(decode_video(sample_video("mp4")), capabilities=VIDEO_MODEL)
    async with fit_frames_stage() as stage:
        assert await run_stage(stage, inference) is inference
        assert not any(helper.pid for helper in (*stage._picture_helpers, *stage._video_sampler.helpers))


@async_test
async def test_image_model_gets_frames_in_order_and_a_note_before_the_text() -> None:
    inference = make_video_inference(decode_video(sample_video("mp4")), capabilities=IMAGE_MODEL)
    message = await fit_message(inference)
    *frames, text = message.parts
    assert all(isinstance(frame, Frame) and frame.kind == "jpeg" for frame in frames)
    numbers = [read_frame_number(frame) for frame in message.frames]
    assert len(set(numbers)) == 8
    assert numbers == sorted(numbers)
    note, text_after_note = str(text).split("\n")
    assert note.startswith("These 8 images are frames of one video of 2.0 s, in order, taken at 0.1, 0.4, 0.6,")
    assert note.endswith(" and 1.9 s.")
    assert text_after_note == "What happens?"
    assert inference.messages[-1].video is not None


@pytest.mark.parametrize(("limit", "option", "count"), [(3, 8, 3), (20, 8, 8), (20, 12, 12), (20, 1, 1)])
@async_test
async def test_frame_count_is_limited_by_the_model_and_by_the_option(limit: int, option: int, count: int) -> None:
    inference = make_video_inference(decode_video(sample_video("webm")), frames=limit)
    message = await fit_message(inference, video_frames=option)
    assert len(message.frames) == count
    assert message.text.startswith("This image is a frame of" if count == 1 else f"These {count} images are frames of")


@async_test
async def test_file_over_the_byte_limit_is_sampled_for_a_video_model() -> None:
    file = decode_video(sample_video("mp4"))
    exact = make_video_inference(file, capabilities=VIDEO_MODEL, video_bytes=len(file.data))
    assert (await fit_message(exact)).video is file
    over = make_video_inference(file, capabilities=VIDEO_MODEL, video_bytes=len(file.data) - 1)
    assert len((await fit_message(over)).frames) == 8


@async_test
async def test_video_model_without_images_rejects_a_file_over_the_byte_limit() -> None:
    inference = make_video_inference(decode_video(sample_video("mp4")), capabilities=("text", "video"), video_bytes=9)
    with pytest.raises(InvalidRequest, match="frames: tiny takes a video of at most 9 bytes"):
        await fit_message(inference)


@pytest.mark.parametrize(
    ("settings", "problem"), [({"capabilities": ("text",)}, "takes text alone"), ({"frames": 0}, "takes at most 0")]
)
@async_test
async def test_text_model_rejects_a_video(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"frames: tiny {problem}"):
        await fit_message(make_video_inference(decode_video(sample_video("mp4")), **settings))


@async_test
async def test_sampled_frames_are_within_the_frame_limits() -> None:
    video = decode_video(make_video(size=(320, 240)))
    message = await fit_message(make_video_inference(video, frame_pixels=10_000, frame_bytes=900))
    assert all(frame.pixels <= 10_000 and len(frame.data) <= 900 for frame in message.frames)
    with pytest.raises(
        InvalidRequest, match=r"frames\[0\]: the pictures of this MP4 video can't be made to fit 99 bytes"
    ):
        await fit_message(make_video_inference(decode_video(sample_video("mp4")), frame_bytes=99))


@async_test
async def test_frames_sent_as_video_get_a_note() -> None:
    frames = plain_picture(9, 9), noise_picture(200, 200), plain_picture(8, 8)
    message = await fit_message(make_video_inference(*frames, frame_pixels=400))
    assert message.text == "These 3 images are frames of one video, in order.\nWhat happens?"
    assert [frame.pixels for frame in message.frames] == [81, 400, 64]
    message = await fit_message(make_video_inference(plain_picture(9, 9), text=""))
    assert message.text == "This image is a frame of one video, in order."


@async_test
async def test_frames_sent_as_images_get_no_note() -> None:
    assert (await fit_message(make_image_inference(plain_picture(9, 9), plain_picture(9, 9)))).text == "What is it?"


@async_test
async def test_note_replaces_an_empty_text() -> None:
    assert (await fit_message(make_video_inference(decode_video(sample_video("mp4")), text=""))).text.endswith(" s.")


def test_strip_note_restores_the_text() -> None:
    message = Message("user", (plain_picture(1, 1), "Why?\nHow?"))
    assert sampling.strip_note(sampling.note_frames_of_video(message).text) == "Why?\nHow?"
    assert sampling.strip_note("These 3 images are strange.") == "These 3 images are strange."


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (audio_only(), r"frames\[0\]: this MP4 file holds no moving pictures"),
        (sample_video("mkv")[:60], r"frames\[0\]: th.* MKV (file holds no|video can't be decoded)"),
        (b"\0\0\1\xba" + bytes(9000), r"frames\[0\]: the pictures of this MPEG video can't be decoded"),
    ],
)
@async_test
async def test_broken_video_is_an_invalid_request_and_the_next_request_succeeds(data: bytes, problem: str) -> None:
    async with fit_frames_stage(video_workers=1) as stage:
        with pytest.raises(InvalidRequest, match=problem):
            await run_stage(stage, make_video_inference(decode_video(data)))
        assert (await run_stage(stage, make_video_inference(decode_video(sample_video("mp4"))))).messages[-1].frames


@async_test
async def test_video_that_exceeds_the_timeout_is_rejected() -> None:
    with pytest.raises(InvalidRequest, match=r"this WebM video could not be unpacked within 0\.001 s; send a shorter"):
        await fit_message(make_video_inference(decode_video(sample_video("webm"))), video_seconds=0.001)


@async_test
async def test_killed_video_helper_fails_one_request_and_the_next_starts_a_new_helper() -> None:
    async with fit_frames_stage(video_workers=1) as stage:
        inference = make_video_inference(decode_video(sample_video("three_gp")))
        await run_stage(stage, inference)
        (helper,) = stage._video_sampler.helpers
        assert helper.pid is not None
        os.kill(helper.pid, signal.SIGKILL)
        with pytest.raises(InvalidRequest, match="this 3GP video could not be unpacked within what one video may use"):
            await run_stage(stage, inference)
        assert len((await run_stage(stage, inference)).messages[-1].frames) == 8


@async_test
async def test_close_ends_the_video_helpers() -> None:
    async with fit_frames_stage() as stage:
        await run_stage(stage, make_video_inference(decode_video(sample_video("mp4"))))
        assert any(helper.pid for helper in stage._video_sampler.helpers)
    assert not any(helper.pid for helper in stage._video_sampler.helpers)


@async_test
async def test_without_pyav_only_sampling_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="pip install av"):
        await fit_message(make_video_inference(decode_video(sample_video("mp4"))))
    assert (await fit_message(make_video_inference(decode_video(sample_video("mp4")), capabilities=VIDEO_MODEL))).video


@pytest.mark.parametrize("options", [{"video_frames": 0}, {"video_seconds": 0}, {"video_workers": 0}])
def test_invalid_video_options_are_rejected(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="video_"):
        create_stage("fit_frames", options, Context())
