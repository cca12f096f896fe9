"""A worker that makes pictures smaller: a file's bytes come in, and those of a smaller picture go out.

Asked `{data, kind, pixels, bytes}`, it answers `{data, kind, width, height}` or `{error}`, which is `undecodable`,
`memory`, or `bytes` where even a tiny picture would be larger than that.
"""

from __future__ import annotations

import io
import math
from typing import Any, Literal

from PIL import Image, ImageOps

from pipeline.workers.child import serve

# What decode_frames lets through (100 million pixels) takes 400 MB unpacked, and as much again while it is converted.
MEMORY = 1_536 * 1024 * 1024
# Pillow's own guard counts pixels that the header declares; the memory limit counts the bytes that they really take.
Image.MAX_IMAGE_PIXELS = None

QUALITY = 90
FALLING_QUALITIES = (85, 70, 50)
SHRINK = 0.7
SMALLEST = 16  # pixels of the longer side: below that a picture says nothing any more
JPEG_MAX_SIDE = 65_500
FORMATS = ("PNG", "JPEG", "GIF", "WEBP")

Kind = Literal["png", "jpeg", "webp"]


class TooManyBytesError(Exception):
    """No picture is so small that it fits."""


def fit(data: bytes, kind: str, max_pixels: int, max_bytes: int) -> tuple[bytes, Kind, Image.Image]:
    """The picture within both limits, as bytes, their kind and the picture. A GIF becomes a PNG of its first frame.

    Raises MemoryError, TooManyBytesError, and whatever Pillow raises for a file that it can't decode.
    """
    image = load(data, max_pixels)
    kept: Kind = "jpeg" if kind == "jpeg" else "webp" if kind == "webp" else "png"
    encoded = _encode(image, kept, QUALITY)
    if len(encoded) <= max_bytes:
        return encoded, kept, image
    return squeeze(opaque(image), max_bytes)


def load(data: bytes, max_pixels: int) -> Image.Image:
    """The first frame, upright, as L, RGB or RGBA, with its aspect ratio, and of at most `max_pixels` pixels."""
    image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    size = size_within(image.width, image.height, max_pixels)
    if size != image.size:
        image.draft(None, size)  # a JPEG can be unpacked at a half, a quarter or an eighth of its size
    image = _plain(image)
    if image.width * image.height > max_pixels:
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    ImageOps.exif_transpose(image, in_place=True)
    image.info.clear()  # a model does nothing with a colour profile, and where a photo was taken is not its business
    return image


def size_within(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """The size with this aspect ratio that has at most so many pixels."""
    if width * height <= max_pixels:
        return width, height
    scale = math.sqrt(max_pixels / (width * height))
    width, height = max(1, int(width * scale)), max(1, int(height * scale))
    return min(width, max(1, max_pixels // height)), min(height, max(1, max_pixels // width))  # a line is 1 pixel high


def _plain(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey, which convert() would cut off instead of scaling
        return image.convert("I").point(lambda value: value / 256).convert("L")
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB")


def opaque(image: Image.Image) -> Image.Image:
    """On white where it is transparent, and no longer than a JPEG can be."""
    if image.mode == "RGBA":
        ground = Image.new("RGB", image.size, "white")
        ground.paste(image, mask=image.getchannel("A"))
        image = ground
    if max(image.size) > JPEG_MAX_SIDE:
        image.thumbnail((JPEG_MAX_SIDE, JPEG_MAX_SIDE))
    return image


def squeeze(image: Image.Image, max_bytes: int) -> tuple[bytes, Kind, Image.Image]:
    """An opaque picture as a JPEG, of a lower quality and then smaller until it fits. Raises TooManyBytesError."""
    while True:
        for quality in FALLING_QUALITIES:
            encoded = _encode(image, "jpeg", quality)
            if len(encoded) <= max_bytes:
                return encoded, "jpeg", image
        if max(image.size) <= SMALLEST:
            raise TooManyBytesError
        width, height = image.size
        image = image.resize((max(1, int(width * SHRINK)), max(1, int(height * SHRINK))), reducing_gap=2.0)


def _encode(image: Image.Image, kind: Kind, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind.upper(), quality=quality)
    return buffer.getvalue()


def answer(message: dict[str, Any]) -> dict[str, Any]:
    try:
        data, kind, image = fit(message["data"], message["kind"], message["pixels"], message["bytes"])
    except TooManyBytesError:
        return {"error": "bytes"}
    except MemoryError:
        raise
    except Exception:  # a broken file makes Pillow raise almost anything: OSError, SyntaxError, struct.error, ...
        return {"error": "undecodable"}
    return {"data": data, "kind": kind, "width": image.width, "height": image.height}


if __name__ == "__main__":
    serve(answer, MEMORY)
