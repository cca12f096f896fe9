"""Image files recognized by their bytes: kind, size in pixels, and whether the end is there. No pixel is decoded."""

from __future__ import annotations

import struct
from contextlib import suppress
from typing import Literal

ImageKind = Literal["png", "jpeg", "gif", "webp"]

_MAX_BLOCKS = 100_000  # a hostile file has a block every two bytes and would block the event loop for seconds
# The start-of-frame markers, ITU T.81 table B.1.
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, b"\xff\xd9"


def detect_image_kind(data: bytes) -> ImageKind | None:
    """The kind of an image file, None for an unknown one."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    return None


def read_image_size(data: bytes, kind: ImageKind) -> tuple[int, int]:
    """Width and height in pixels. Raises ValueError for a broken header."""
    try:
        return _SIZE_READERS[kind](data)
    except (struct.error, IndexError) as error:
        raise ValueError(str(error)) from error


def is_image_complete(data: bytes, kind: ImageKind) -> bool:
    """Whether the end of the image is there. Trailing bytes, which some cameras append, are ignored.

    Raises ValueError for a JPEG with a broken header.
    """
    match kind:
        case "png":
            return data.rfind(b"IEND\xaeB`\x82") > 0
        case "jpeg":  # searches after the headers, because an embedded thumbnail has an end of its own
            return data.find(_END_OF_IMAGE, _read_jpeg_headers(data)[1]) > 0
        case "gif":
            return _is_gif_complete(data)
        case "webp":
            return len(data) >= 8 + int.from_bytes(data[4:8], "little")


def _read_png_size(data: bytes) -> tuple[int, int]:
    if data[12:16] != b"IHDR":
        raise ValueError("a PNG begins with its IHDR chunk")
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _read_gif_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _read_webp_size(data: bytes) -> tuple[int, int]:
    """The size in the first chunk: VP8 (lossy), VP8L (lossless) or VP8X (extended). RFC 9649."""
    chunk = data[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise ValueError("a WebP begins with a VP8, VP8L or VP8X chunk")


def _read_jpeg_size(data: bytes) -> tuple[int, int]:
    return _read_jpeg_headers(data)[0]


def _read_jpeg_headers(data: bytes) -> tuple[tuple[int, int], int]:
    """Walk the segments before the pixels. Returns the size and the offset of the pixels."""
    size: tuple[int, int] | None = None
    offset = 2
    for _ in range(_MAX_BLOCKS):
        if data[offset] != 0xFF:
            raise ValueError("a segment begins with 0xFF")
        marker = data[offset + 1]
        if marker == 0xFF:  # padding
            offset += 1
            continue
        (length,) = struct.unpack_from(">H", data, offset + 2)
        if marker in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", data, offset + 5)
            size = (width, height)
        offset += 2 + length
        if marker == _START_OF_SCAN:
            if size is None:
                raise ValueError("the size comes before the pixels")
            return size, offset
    raise ValueError("more segments than any real JPEG has")


_SIZE_READERS = {"png": _read_png_size, "jpeg": _read_jpeg_size, "gif": _read_gif_size, "webp": _read_webp_size}


def _is_gif_complete(data: bytes) -> bool:
    """Walk the blocks up to the trailer, whose byte may also occur inside a block. GIF89a, appendix B."""
    with suppress(IndexError):
        offset, in_sub_blocks = 13 + _color_table_size(data[10]), False
        for _ in range(_MAX_BLOCKS):
            first = data[offset]
            if in_sub_blocks:  # a length and that many bytes; length 0 ends the sub-blocks
                offset, in_sub_blocks = offset + 1 + first, first > 0
            elif first in b"!,":  # an extension or an image, each followed by sub-blocks
                offset += 2 if first == 0x21 else 11 + _color_table_size(data[offset + 9])
                in_sub_blocks = True
            else:
                return first == 0x3B
    return False


def _color_table_size(flags: int) -> int:
    """The size in bytes of the color table that these flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0
