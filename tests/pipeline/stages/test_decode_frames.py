"""decode_frames: encoded frames are decoded; invalid or too large ones are rejected before any other work."""

from __future__ import annotations

import base64

import pytest

from pipeline.errors import InvalidRequest
from pipeline.media.frames import EncodedFrame
from pipeline.messages import EventStream, Inference
from pipeline.presets.schema import SchemaError
from pipeline.stage import Context
from tests.async_tests import async_test
from tests.pipeline.factories import create_stage, make_inference, play_steps
from tests.pipeline.media.make_pictures import decompression_bomb, plain_picture


class NextStage:
    """Records the inferences with which the stage proceeds."""

    def __init__(self) -> None:
        self.inferences: list[Inference] = []

    async def __call__(self, inference: Inference) -> EventStream:
        self.inferences.append(inference)
        return EventStream(play_steps(["done"]))


@async_test
async def test_frames_are_decoded_in_place() -> None:
    picture, next_stage = plain_picture(3, 2), NextStage()
    text = base64.b64encode(picture.data).decode()
    inference = make_inference(EncodedFrame(text, "frames[0]"), picture, EncodedFrame(picture.data, "frames[2]"))
    await create_stage("decode_frames", {}, Context())(inference, next_stage)
    (decoded,) = next_stage.inferences
    first, second, third = decoded.messages[0].frames
    assert (first.width, first.height, first.base64) == (3, 2, text)
    assert second is picture
    assert third.data == picture.data
    assert decoded.messages[0].parts[0] == "Hi"


@async_test
async def test_frame_is_decoded_once_for_all_models() -> None:
    inference, next_stage = make_inference(EncodedFrame(plain_picture(3, 2).data, "frames[0]")), NextStage()
    stage = create_stage("decode_frames", {}, Context())
    await stage(inference, next_stage)
    await stage(inference, next_stage)
    first, second = (decoded.messages[0].frames[0] for decoded in next_stage.inferences)
    assert first is second


@async_test
async def test_invalid_frame_is_rejected_by_name_before_proceeding() -> None:
    next_stage = NextStage()
    inference = make_inference(EncodedFrame(plain_picture(3, 2).data, "frames[0]"), EncodedFrame("!", "frames[1]"))
    with pytest.raises(InvalidRequest, match=r"^frames\[1\]: "):
        await create_stage("decode_frames", {}, Context())(inference, next_stage)
    assert next_stage.inferences == []


@async_test
async def test_decompression_bomb_is_rejected_by_its_header() -> None:
    inference = make_inference(EncodedFrame(decompression_bomb(1001).data, "frames[0]"))
    with pytest.raises(InvalidRequest, match=r"frames\[0\]: 1001 x 1001 pixels; at most 1,000,000 are unpacked"):
        await create_stage("decode_frames", {"max_pixels": 1_000_000}, Context())(inference, NextStage())


def test_invalid_options_are_rejected() -> None:
    with pytest.raises(SchemaError, match="max_pixels: expected an integer >= 1"):
        create_stage("decode_frames", {"max_pixels": 0}, Context())
