"""Video files recognized by their bytes: the container, and whether the file is complete. No frame is decoded."""

from __future__ import annotations

from typing import Literal

from pipeline.errors import InvalidRequest

VideoKind = Literal["mkv", "mov", "mp4", "webm", "flv", "mpeg", "mpg", "wmv", "three_gp"]

_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_EBML = b"\x1aE\xdf\xa3"
_MPEG_PROGRAM_STREAM = b"\x00\x00\x01\xba"
_MPEG_VIDEO_SEQUENCE = b"\x00\x00\x01\xb3"  # MPEG video without a container
# HEIF, AVIF, JPEG 2000 and Canon's raw images use the same boxes as MP4.
_IMAGE_BRANDS = (b"mif", b"msf", b"hei", b"hev", b"avi", b"jp2", b"jpx", b"jpm", b"crx")
_QUICKTIME_BOXES = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # the first box of files older than `ftyp`
_MAX_BOXES = 100_000  # a hostile file has one every eight bytes; an hour of live video has some thousands


def read_video_kind(data: bytes, name: str) -> VideoKind | None:
    """The container, None for an unknown one. Raises InvalidRequest for an incomplete file.

    Only MP4, MOV and 3GP contain their length; other kinds are not checked. `name` is the frame's name in errors.
    """
    kind = _detect_kind(data)
    if kind in ("mp4", "mov", "three_gp") and not _is_complete(data):
        raise InvalidRequest(f"{name}: this {kind.upper().replace('THREE_GP', '3GP')} video is cut off.")
    return kind


def _detect_kind(data: bytes) -> VideoKind | None:
    if data[4:8] == b"ftyp":
        return _kind_of_brand(data[8:12])
    if data.startswith(_EBML):
        return _kind_of_doctype(data)
    if data.startswith(b"FLV\x01"):
        return "flv"
    if data.startswith(_ASF):
        return "wmv"
    if data.startswith((_MPEG_PROGRAM_STREAM, _MPEG_VIDEO_SEQUENCE)):
        return "mpeg"
    return "mov" if data[4:8] in _QUICKTIME_BOXES else None


def _kind_of_brand(brand: bytes) -> VideoKind | None:
    if brand.startswith(_IMAGE_BRANDS):
        return None
    if brand == b"qt  ":
        return "mov"
    return "three_gp" if brand.startswith((b"3gp", b"3g2", b"3ge")) else "mp4"


def _kind_of_doctype(data: bytes) -> VideoKind | None:
    """By the element DocType in the EBML header, which takes a few dozen bytes. RFC 8794, 11.2.4."""
    offset = data.find(b"\x42\x82", 4, 100)
    if offset < 0 or offset + 3 > len(data):
        return None
    doctype = data[offset + 3 : offset + 3 + (data[offset + 2] & 0x7F)].rstrip(b"\0")
    return "webm" if doctype == b"webm" else "mkv" if doctype == b"matroska" else None


def _is_complete(data: bytes) -> bool:
    """Whether the file has its index and is as long as its boxes say. Trailing bytes are ignored."""
    offset, has_index = 0, False
    for _ in range(_MAX_BOXES):
        size, kind = int.from_bytes(data[offset : offset + 4]), data[offset + 4 : offset + 8]
        if size == 1:  # a 64-bit size follows
            size = int.from_bytes(data[offset + 8 : offset + 16])
        has_index = has_index or kind == b"moov"
        if size < 8:  # 0: the last box extends to the end of the file
            break
        offset += size
        if offset > len(data):
            return has_index and kind not in (b"moov", b"moof", b"mdat")
    return has_index
