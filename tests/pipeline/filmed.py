"""Videos made for tests: small, and each frame as grey as its number says."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from typing import Any, Final

import av
from av.stream import Disposition
from PIL import Image

from pipeline.frames import Frame
from tests.pipeline.drawn import opened

FRAMES: Final = 40
RATE: Final = 20  # frames a second

# How each kind is made: ffmpeg's container, and a codec that it takes.
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


def film(  # noqa: PLR0913 - each is one way in which videos differ
    kind: str = "mp4",
    frames: int = FRAMES,
    *,
    size: tuple[int, int] = (96, 64),
    keys: int = 5,
    times: Sequence[int] = (),
    turned: int = 0,
    codec: str | None = None,
    **options: str,
) -> bytes:
    """A video with a key frame at least every `keys` frames. `times` are in milliseconds; else it is 20 a second.

    `turned`: degrees by which it has to be turned to be upright. `options` are the codec's.
    """
    form, usual = FORMATS[kind]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as container:
        stream: Any = container.add_stream(codec or usual, rate=RATE)
        stream.width, stream.height, stream.pix_fmt = *size, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.gop_size = keys
        stream.codec_context.options = options
        if times:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        if turned:
            stream.set_display_rotation(turned)
        for number in range(frames):
            frame = av.VideoFrame.from_image(drawn(number, size))  # type: ignore[no-untyped-call]
            frame.pts = times[number] if times else number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return buffer.getvalue()


def drawn(number: int, size: tuple[int, int]) -> Image.Image:
    """Grey as its number says, with a black corner at the top left."""
    image = Image.new("RGB", size, (number * 6 + 10,) * 3)
    image.paste("black", (0, 0, size[0] // 4, size[1] // 4))
    return image


def number_of(frame: Frame) -> int:
    """Which one of the video it is: by the grey in its middle."""
    image = opened(frame).convert("L")
    grey = image.getpixel((image.width // 2, image.height // 2))
    assert isinstance(grey, int)
    return round((grey - 10) / 6)


@cache
def sample(kind: str) -> bytes:
    """Forty frames in two seconds."""
    return film(kind)


def sound(*, cover: bool = False) -> bytes:
    """An MP4 without pictures, but for the one on its cover."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream("aac", rate=8000)
        if cover:
            _put_cover(container)
        container.mux(stream.encode(_silence(0)))
        container.mux(stream.encode())
    return buffer.getvalue()


def talkie() -> bytes:
    """Forty frames and two seconds of silence, one among the other."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        voice: Any = container.add_stream("aac", rate=8000)
        stream: Any = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 96, 64, "yuv420p", 5
        for number in range(FRAMES):
            frame = av.VideoFrame.from_image(drawn(number, (96, 64)))  # type: ignore[no-untyped-call]
            frame.pts = number
            container.mux(stream.encode(frame))
            container.mux(voice.encode(_silence(400 * number, 400)))
        container.mux(stream.encode())
        container.mux(voice.encode())
    return buffer.getvalue()


def _silence(at: int, samples: int = 1024) -> av.AudioFrame:
    silence = av.AudioFrame(format="fltp", layout="mono", samples=samples)
    silence.sample_rate, silence.pts = 8000, at
    for plane in silence.planes:
        plane.update(bytes(plane.buffer_size))
    return silence


def _put_cover(container: Any) -> None:
    stream = container.add_stream("mjpeg", rate=1)
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuvj420p"
    stream.disposition = Disposition.attached_pic
    frame = av.VideoFrame.from_image(drawn(3, (32, 32)))  # type: ignore[no-untyped-call]
    frame.pts = 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode())
