"""Pictures for tests."""

from __future__ import annotations

import io
import os
import struct
import zlib
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from pipeline.media.frames import Frame, read_frame


def save_picture(image: Image.Image, kind: str = "png", **options: Any) -> Frame:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return read_frame(buffer.getvalue(), "frames[0]")


def plain_picture(width: int, height: int, kind: str = "png", **options: Any) -> Frame:
    return save_picture(Image.new("RGB", (width, height), "teal"), kind, **options)


def noise_picture(width: int, height: int, kind: str = "png") -> Frame:
    """A picture that no compression can shrink much."""
    return save_picture(Image.frombytes("RGB", (width, height), os.urandom(3 * width * height)), kind)


def text_picture(text: str) -> Frame:
    image = Image.new("RGB", (640, 120), "white")
    ImageDraw.Draw(image).text((20, 30), text, fill="black", font=ImageFont.load_default(size=40))
    return save_picture(image)


def decompression_bomb(side: int) -> Frame:
    """A PNG of `side` x `side` black pixels: a small file that is decoded to one byte per pixel."""
    pack = zlib.compressobj(1)
    row = bytes(1 + (side + 7) // 8)
    pixels = b"".join([*(pack.compress(row) for _ in range(side)), pack.flush()])
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    return read_frame(b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(*chunk) for chunk in chunks), "frames[0]")


def broken_picture() -> Frame:
    """A PNG with a header, an end, and garbage between them."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 600, 600, 8, 2, 0, 0, 0)), (b"IDAT", b"rubbish"), (b"IEND", b"")]
    return read_frame(b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(*chunk) for chunk in chunks), "frames[0]")


def open_picture(frame: Frame) -> Image.Image:
    return Image.open(io.BytesIO(frame.data))


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
