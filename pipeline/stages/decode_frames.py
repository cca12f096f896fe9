"""decode_frames: frames as they came become pictures whose kind, size and end are known, or a video file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from msgspec import Struct

from pipeline.media import decode_all
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
        messages = decode_all(inference.messages, inference.request.media_type, self._max_pixels)
        if messages != inference.messages:
            inference = replace(inference, messages=messages)
        return await proceed(inference)


def create(options: Mapping[str, Any], context: Context) -> DecodeFrames:
    return DecodeFrames(check(options, Options).max_pixels)
