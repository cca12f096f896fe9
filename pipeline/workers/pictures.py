"""The picture helper process: the bytes of an image file come in, and those of a smaller image go out.

    {id, data, kind, pixels, bytes}    {id, data, kind, width, height}, or {id, error}

`error` is `undecodable`, `memory`, or `bytes` if even a tiny image would exceed that limit.
"""

from __future__ import annotations

import io
import math
from typing import Any, Literal

from PIL import Image, ImageOps

from pipeline.workers.child import serve

# An image of 100 million pixels, the limit of decode_frames, takes 400 MB decoded, and as much again for a conversion.
MEMORY_LIMIT = 1_536 * 1024 * 1024
# Pillow's own check counts the pixels in the header; the memory limit counts the bytes that are really used.
Image.MAX_IMAGE_PIXELS = None

DEFAULT_QUALITY = 90
FALLBACK_QUALITIES = (85, 70, 50)
SHRINK_FACTOR = 0.7
MIN_LONGER_SIDE = 16  # pixels; a model can't recognize anything in a smaller image
JPEG_MAX_SIDE = 65_500
FORMATS = ("PNG", "JPEG", "GIF", "WEBP")

OutputKind = Literal["png", "jpeg", "webp"]


class CannotFitError(Exception):
    """Even the smallest allowed image exceeds the byte limit."""


def shrink_to_limits(data: bytes, kind: str, max_pixels: int, max_bytes: int) -> tuple[bytes, OutputKind, Image.Image]:
    """Shrink an image to both limits. Returns its bytes, their kind, the image. A GIF becomes a PNG of its first frame.

    Raises MemoryError, CannotFitError, and whatever Pillow raises for a file that it can't decode.
    """
    image = load_image(data, max_pixels)
    output_kind: OutputKind = "jpeg" if kind == "jpeg" else "webp" if kind == "webp" else "png"
    encoded = _encode(image, output_kind, DEFAULT_QUALITY)
    if len(encoded) <= max_bytes:
        return encoded, output_kind, image
    return compress_to_jpeg(flatten(image), max_bytes)


def load_image(data: bytes, max_pixels: int) -> Image.Image:
    """The first frame: upright, as L, RGB or RGBA, scaled to at most `max_pixels` with its aspect ratio."""
    image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    size = scale_to_pixels(image.width, image.height, max_pixels)
    if size != image.size:
        image.draft(None, size)  # decodes a JPEG at a half, a quarter or an eighth of its size
    image = _normalize_mode(image)
    if image.width * image.height > max_pixels:
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    ImageOps.exif_transpose(image, in_place=True)
    image.info.clear()  # drops metadata: a model doesn't use a colour profile, and must not get the location
    return image


def scale_to_pixels(width: int, height: int, max_pixels: int) -> tuple[int, int]:
    """The largest size of at most `max_pixels` with the same aspect ratio."""
    if width * height <= max_pixels:
        return width, height
    scale = math.sqrt(max_pixels / (width * height))
    width, height = max(1, int(width * scale)), max(1, int(height * scale))
    return min(width, max(1, max_pixels // height)), min(
        height, max(1, max_pixels // width)
    )  # for an image that is 1 pixel high or wide


def _normalize_mode(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: convert() would clip instead of scale
        return image.convert("I").point(lambda value: value / 256).convert("L")
    if image.has_transparency_data:
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if image.mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB")


def flatten(image: Image.Image) -> Image.Image:
    """Replace transparency by white and limit the size to the largest JPEG."""
    if image.mode == "RGBA":
        background = Image.new("RGB", image.size, "white")
        background.paste(image, mask=image.getchannel("A"))
        image = background
    if max(image.size) > JPEG_MAX_SIDE:
        image.thumbnail((JPEG_MAX_SIDE, JPEG_MAX_SIDE))
    return image


def compress_to_jpeg(image: Image.Image, max_bytes: int) -> tuple[bytes, OutputKind, Image.Image]:
    """Encode an opaque image as JPEG, with lower quality and then smaller until it fits. Raises CannotFitError."""
    while True:
        for quality in FALLBACK_QUALITIES:
            encoded = _encode(image, "jpeg", quality)
            if len(encoded) <= max_bytes:
                return encoded, "jpeg", image
        if max(image.size) <= MIN_LONGER_SIDE:
            raise CannotFitError
        width, height = image.size
        image = image.resize(
            (max(1, int(width * SHRINK_FACTOR)), max(1, int(height * SHRINK_FACTOR))), reducing_gap=2.0
        )


def _encode(image: Image.Image, kind: OutputKind, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind.upper(), quality=quality)
    return buffer.getvalue()


def handle(message: dict[str, Any]) -> dict[str, Any]:
    try:
        data, kind, image = shrink_to_limits(message["data"], message["kind"], message["pixels"], message["bytes"])
    except CannotFitError:
        return {"error": "bytes"}
    except MemoryError:
        raise
    except Exception:  # Pillow raises OSError, SyntaxError, struct.error and more for broken files
        return {"error": "undecodable"}
    return {"data": data, "kind": kind, "width": image.width, "height": image.height}


if __name__ == "__main__":
    serve(handle, MEMORY_LIMIT)
