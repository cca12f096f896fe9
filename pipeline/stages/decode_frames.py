"""decode_frames: frames as they came become pictures whose kind, size and end are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from msgspec import Struct

from pipeline.errors import InvalidRequest
from pipeline.frames import EncodedFrame, Frame
from pipeline.messages import Events, Inference
from pipeline.schema import Positive, check
from pipeline.stage import Context, Proceed


class Options(Struct, forbid_unknown_fields=True):
    """`max_pixels`: a picture that would unpack to more is refused by its header, before anything unpacks it."""

    max_pixels: Positive = 100_000_000


class DecodeFrames:
    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels

    async def __call__(self, inference: Inference, proceed: Proceed) -> Events:
        messages = tuple(
            replace(message, parts=tuple(map(self._decode, message.parts))) for message in inference.messages
        )
        return await proceed(replace(inference, messages=messages))

    def _decode(self, part: str | EncodedFrame | Frame) -> str | Frame:
        if not isinstance(part, EncodedFrame):
            return part
        frame = part.decode()
        if frame.pixels > self._max_pixels:
            raise InvalidRequest(
                f"{part.name}: {frame.width} x {frame.height} pixels; at most {self._max_pixels:,} are unpacked."
            )
        return frame


def create(options: Mapping[str, Any], context: Context) -> DecodeFrames:
    return DecodeFrames(check(options, Options).max_pixels)
