"""decode_frames: decode the frames of the request into pictures of known kind and size, or a video file."""

from __future__ import annotations

from dataclasses import replace

from msgspec import Struct

from pipeline.media.decode import decode_messages
from pipeline.messages import EventStream, Inference
from pipeline.presets.schema import PositiveInt
from pipeline.stage import Context, Proceed


class DecodeFrames:
    class Options(Struct, forbid_unknown_fields=True):
        """`max_pixels`: a picture with more is rejected by its header, before its pixels are decoded."""

        max_pixels: PositiveInt = 100_000_000

    def __init__(self, options: Options, context: Context) -> None:
        self._max_pixels = options.max_pixels

    async def __call__(self, inference: Inference, proceed: Proceed) -> EventStream:
        messages = decode_messages(inference.messages, inference.request.media_type, self._max_pixels)
        if messages != inference.messages:
            inference = replace(inference, messages=messages)
        return await proceed(inference)
