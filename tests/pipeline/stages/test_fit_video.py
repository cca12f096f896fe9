"""fit_frames and videos: whole to a model that takes them, as pictures in order to every other, and never silently."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from typing import Any

import pytest

from pipeline import sampling
from pipeline.errors import InvalidRequest, Unavailable
from pipeline.frames import EncodedFrame, Frame, Video
from pipeline.messages import Inference, Message
from pipeline.presets import Capability
from pipeline.stage import Context
from pipeline.stages.fit_frames import create
from tests.aio import asynchronous
from tests.pipeline.drawn import noise, plain
from tests.pipeline.filmed import film, number_of, sample, sound
from tests.pipeline.stages.test_fit_frames import asking, fit_frames, through

SEES: tuple[Capability, ...] = ("text", "image")
WATCHES: tuple[Capability, ...] = ("text", "image", "video")


def video(data: bytes) -> Video:
    decoded = EncodedFrame(data, "frames[0]").decode()
    assert isinstance(decoded, Video)
    return decoded


def watching(*shown: Frame | Video, text: str = "What happens?", **more: Any) -> Inference:
    """A request with mediaType video."""
    inference = asking(**more)
    messages = (Message("user", (*shown, text)),)
    request = replace(inference.request, messages=messages, media_type="video")
    return replace(inference, request=request, messages=messages)


async def sent(inference: Inference, **options: Any) -> Message:
    async with fit_frames(**options) as stage:
        return (await through(stage, inference)).messages[-1]


@asynchronous
async def test_a_model_that_takes_video_gets_the_file_untouched_and_no_worker_is_started() -> None:
    asked = watching(video(sample("mp4")), capabilities=WATCHES)
    async with fit_frames() as stage:
        assert await through(stage, asked) is asked
        assert not any(worker.pid for worker in (*stage._workers, *stage._sampler.workers))


@asynchronous
async def test_every_other_gets_pictures_in_order_and_the_sentence_before_the_text() -> None:
    asked = watching(video(sample("mp4")), capabilities=SEES)
    message = await sent(asked)
    *frames, text = message.parts
    assert all(isinstance(frame, Frame) and frame.kind == "jpeg" for frame in frames)
    numbers = [number_of(frame) for frame in message.frames]
    assert len(set(numbers)) == 8
    assert numbers == sorted(numbers)
    said, question = str(text).split("\n")
    assert said.startswith("These 8 images are frames of one video of 2.0 s, in order, taken at 0.1, 0.4, 0.6,")
    assert said.endswith(" and 1.9 s.")
    assert question == "What happens?"
    assert asked.messages[-1].video is not None


@pytest.mark.parametrize(("limit", "option", "count"), [(3, 8, 3), (20, 8, 8), (20, 12, 12), (20, 1, 1)])
@asynchronous
async def test_as_many_as_the_model_takes_and_at_most_the_stages_option(limit: int, option: int, count: int) -> None:
    message = await sent(watching(video(sample("webm")), frames=limit), video_frames=option)
    assert len(message.frames) == count
    assert message.text.startswith("This image is a frame of" if count == 1 else f"These {count} images are frames of")


@asynchronous
async def test_a_file_over_the_models_limit_is_sampled_like_for_others() -> None:
    file = video(sample("mp4"))
    exact = watching(file, capabilities=WATCHES, video_bytes=len(file.data))
    assert (await sent(exact)).video is file
    over = watching(file, capabilities=WATCHES, video_bytes=len(file.data) - 1)
    assert len((await sent(over)).frames) == 8


@asynchronous
async def test_one_that_takes_video_but_no_pictures_refuses_a_larger_file() -> None:
    asked = watching(video(sample("mp4")), capabilities=("text", "video"), video_bytes=9)
    with pytest.raises(InvalidRequest, match="frames: tiny takes a video of at most 9 bytes"):
        await sent(asked)


@pytest.mark.parametrize(
    ("more", "why"), [({"capabilities": ("text",)}, "takes text alone"), ({"frames": 0}, "takes at most 0")]
)
@asynchronous
async def test_a_model_without_eyes_refuses_a_video(more: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"frames: tiny {why}"):
        await sent(watching(video(sample("mp4")), **more))


@asynchronous
async def test_pictures_of_a_video_keep_within_the_limits_of_a_frame() -> None:
    message = await sent(watching(video(film(size=(320, 240))), frame_pixels=10_000, frame_bytes=900))
    assert all(frame.pixels <= 10_000 and len(frame.data) <= 900 for frame in message.frames)
    with pytest.raises(
        InvalidRequest, match=r"frames\[0\]: the pictures of this MP4 video can't be made to fit 99 bytes"
    ):
        await sent(watching(video(sample("mp4")), frame_bytes=99))


@asynchronous
async def test_frames_that_the_client_sends_as_a_video_get_the_sentence_too() -> None:
    message = await sent(watching(plain(9, 9), noise(200, 200), plain(8, 8), frame_pixels=400))
    assert message.text == "These 3 images are frames of one video, in order.\nWhat happens?"
    assert [frame.pixels for frame in message.frames] == [81, 400, 64]
    one = await sent(watching(plain(9, 9), text=""))
    assert one.text == "This image is a frame of one video, in order."


@asynchronous
async def test_pictures_that_are_no_video_get_no_sentence() -> None:
    assert (await sent(asking(plain(9, 9), plain(9, 9)))).text == "What is it?"


@asynchronous
async def test_an_empty_text_becomes_the_sentence() -> None:
    assert (await sent(watching(video(sample("mp4")), text=""))).text.endswith(" s.")


def test_the_sentence_can_be_taken_away_again() -> None:
    message = Message("user", (plain(1, 1), "Why?\nHow?"))
    assert sampling.without_sentence(sampling.as_video(message).text) == "Why?\nHow?"
    assert sampling.without_sentence("These 3 images are strange.") == "These 3 images are strange."


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (sound(), r"frames\[0\]: this MP4 file holds no moving pictures"),
        (sample("mkv")[:60], r"frames\[0\]: (this MKV file holds no|the pictures of this MKV video can't be decoded)"),
        (b"\0\0\1\xba" + bytes(9000), r"frames\[0\]: the pictures of this MPEG video can't be decoded"),
    ],
)
@asynchronous
async def test_a_broken_file_is_the_requests_fault_and_the_next_request_works(data: bytes, why: str) -> None:
    async with fit_frames(video_workers=1) as stage:
        with pytest.raises(InvalidRequest, match=why):
            await through(stage, watching(video(data)))
        assert (await through(stage, watching(video(sample("mp4"))))).messages[-1].frames


@asynchronous
async def test_a_video_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(InvalidRequest, match=r"this WebM video could not be unpacked within 0\.001 s; send a shorter"):
        await sent(watching(video(sample("webm"))), video_seconds=0.001)


@asynchronous
async def test_a_worker_that_dies_costs_one_request_and_the_next_gets_a_new_one() -> None:
    async with fit_frames(video_workers=1) as stage:
        asked = watching(video(sample("three_gp")))
        await through(stage, asked)
        (worker,) = stage._sampler.workers
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(InvalidRequest, match="this 3GP video could not be unpacked within what one video may use"):
            await through(stage, asked)
        assert len((await through(stage, asked)).messages[-1].frames) == 8


@asynchronous
async def test_close_ends_its_workers() -> None:
    async with fit_frames() as stage:
        await through(stage, watching(video(sample("mp4"))))
        assert any(worker.pid for worker in stage._sampler.workers)
    assert not any(worker.pid for worker in stage._sampler.workers)


@asynchronous
async def test_without_pyav_only_a_video_that_has_to_be_sampled_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="pip install av"):
        await sent(watching(video(sample("mp4"))))
    assert (await sent(watching(video(sample("mp4")), capabilities=WATCHES))).video


@pytest.mark.parametrize("options", [{"video_frames": 0}, {"video_seconds": 0}, {"video_workers": 0}])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="video_"):
        create(options, Context())
