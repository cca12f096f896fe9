"""decode_frames: encoded frames become pictures; what is none, or too large, is refused before anything else."""

from __future__ import annotations

import base64

import pytest

from pipeline.errors import InvalidRequest
from pipeline.frames import EncodedFrame
from pipeline.messages import Events, Inference
from pipeline.schema import SchemaError
from pipeline.stage import Context
from pipeline.stages.decode_frames import create
from tests.aio import asynchronous
from tests.pipeline.drawn import bomb, plain
from tests.pipeline.making import asked, play


class Next:
    """Takes what a stage hands on."""

    def __init__(self) -> None:
        self.got: list[Inference] = []

    async def __call__(self, inference: Inference) -> Events:
        self.got.append(inference)
        return Events(play(["done"]))


@asynchronous
async def test_every_frame_is_decoded_and_stays_in_its_place() -> None:
    picture, following = plain(3, 2), Next()
    text = base64.b64encode(picture.data).decode()
    inference = asked(EncodedFrame(text, "frames[0]"), picture, EncodedFrame(picture.data, "frames[2]"))
    await create({}, Context())(inference, following)
    (got,) = following.got
    first, second, third = got.messages[0].frames
    assert (first.width, first.height, first.base64) == (3, 2, text)
    assert second is picture
    assert third.data == picture.data
    assert got.messages[0].parts[0] == "Hi"


@asynchronous
async def test_all_models_share_what_was_decoded_once() -> None:
    inference, following = asked(EncodedFrame(plain(3, 2).data, "frames[0]")), Next()
    stage = create({}, Context())
    await stage(inference, following)
    await stage(inference, following)
    first, second = (got.messages[0].frames[0] for got in following.got)
    assert first is second


@asynchronous
async def test_a_bad_frame_is_refused_by_its_name_and_nothing_follows() -> None:
    following = Next()
    inference = asked(EncodedFrame(plain(3, 2).data, "frames[0]"), EncodedFrame("!", "frames[1]"))
    with pytest.raises(InvalidRequest, match=r"^frames\[1\]: "):
        await create({}, Context())(inference, following)
    assert following.got == []


@asynchronous
async def test_a_bomb_is_refused_by_its_header() -> None:
    inference = asked(EncodedFrame(bomb(1001).data, "frames[0]"))
    with pytest.raises(InvalidRequest, match=r"frames\[0\]: 1001 x 1001 pixels; at most 1,000,000 are unpacked"):
        await create({"max_pixels": 1_000_000}, Context())(inference, Next())


def test_wrong_options_are_refused() -> None:
    with pytest.raises(SchemaError, match="max_pixels: expected an integer >= 1"):
        create({"max_pixels": 0}, Context())
