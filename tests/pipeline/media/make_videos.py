"""Small videos for tests, in which the grey level of each frame encodes its number."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any, Final

import av
from av.stream import Disposition
from PIL import Image

from pipeline.media.frames import Frame
from tests.pipeline.media.make_pictures import open_picture

FRAME_COUNT: Final = 40
FRAME_RATE: Final = 20  # frames a second

# The ffmpeg container of each kind, and a codec for it.
FORMATS: Final = {
    "mp4": ("mp4", "libx264"),
    "mov": ("mov", "libx264"),
    "mkv": ("matroska", "libx264"),
    "webm": ("webm", "libvpx-vp9"),
    "flv": ("flv", "flv"),
    "mpeg": ("mpeg", "mpeg2video"),
    "wmv": ("asf", "wmv2"),
    "three_gp": ("3gp", "mpeg4"),
}


def make_video(  # noqa: PLR0913 - each parameter is a property in which videos differ
    kind: str = "mp4",
    frames: int = FRAME_COUNT,
    *,
    size: tuple[int, int] = (96, 64),
    keyframe_interval: int = 5,
    times: Sequence[int] = (),
    rotation: int = 0,
    codec: str | None = None,
    **options: str,
) -> bytes:
    """A video with a key frame at least every `keyframe_interval` frames, at 20 frames per second.

    `times`: presentation times in milliseconds instead. `rotation`: degrees that turn it upright. `options` are those
    of the codec.
    """
    container_format, default_codec = FORMATS[kind]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container_format) as container:
        stream: Any = container.add_stream(codec or default_codec, rate=FRAME_RATE)
        stream.width, stream.height, stream.pix_fmt = *size, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.gop_size = keyframe_interval
        stream.codec_context.options = options
        if times:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(frames):
            frame = av.VideoFrame.from_image(draw_frame(number, size))  # type: ignore[no-untyped-call]
            frame.pts = times[number] if times else number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def draw_frame(number: int, size: tuple[int, int]) -> Image.Image:
    """A frame in the grey of its number, with a black corner at the top left."""
    image = Image.new("RGB", size, (number * 6 + 10,) * 3)
    image.paste("black", (0, 0, size[0] // 4, size[1] // 4))
    return image


def read_frame_number(frame: Frame) -> int:
    """The number of a frame, from the grey in its middle."""
    image = open_picture(frame).convert("L")
    grey = image.getpixel((image.width // 2, image.height // 2))
    assert isinstance(grey, int)
    return round((grey - 10) / 6)


@cache
def sample_video(kind: str) -> bytes:
    """40 frames in two seconds."""
    return make_video(kind)


def audio_only(*, cover: bool = False) -> bytes:
    """An MP4 without a video stream; with `cover`, it has a cover image."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream("aac", rate=8000)
        if cover:
            _add_cover(container)
        container.mux(stream.encode(_silence(0)))
        container.mux(stream.encode())
    return buffer.getvalue()


def video_with_audio() -> bytes:
    """40 frames and two seconds of silence, interleaved."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        audio_stream: Any = container.add_stream("aac", rate=8000)
        stream: Any = container.add_stream("libx264", rate=FRAME_RATE)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 96, 64, "yuv420p", 5
        for number in range(FRAME_COUNT):
            frame = av.VideoFrame.from_image(draw_frame(number, (96, 64)))  # type: ignore[no-untyped-call]
            frame.pts = number
            container.mux(stream.encode(frame))
            container.mux(audio_stream.encode(_silence(400 * number, 400)))
        container.mux(stream.encode())
        container.mux(audio_stream.encode())
    return buffer.getvalue()


def _silence(start: int, samples: int = 1024) -> av.AudioFrame:
    silence = av.AudioFrame(format="fltp", layout="mono", samples=samples)
    silence.sample_rate, silence.pts = 8000, start
    for plane in silence.planes:
        plane.update(bytes(plane.buffer_size))
    return silence


def _add_cover(container: Any) -> None:
    stream = container.add_stream("mjpeg", rate=1)
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
    stream.disposition = Disposition.attached_pic
    frame = av.VideoFrame.from_image(draw_frame(3, (32, 32)))  # type: ignore[no-untyped-call]
    frame.pts = 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode())
