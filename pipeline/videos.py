"""Whole video files, told by their bytes: which container it is, read without unpacking a picture."""

from __future__ import annotations

from typing import Literal

from pipeline.errors import InvalidRequest

VideoKind = Literal["mkv", "mov", "mp4", "webm", "flv", "mpeg", "mpg", "wmv", "three_gp"]

_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_EBML = b"\x1aE\xdf\xa3"
_PACK, _SEQUENCE = (
    b"\x00\x00\x01\xba",
    b"\x00\x00\x01\xb3",
)  # an MPEG program stream, or MPEG video bare of any container
# HEIF, AVIF, JPEG 2000 and Canon's raw pictures lie in the same boxes as an MP4.
_PICTURE_BRANDS = (b"mif", b"msf", b"hei", b"hev", b"avi", b"jp2", b"jpx", b"jpm", b"crx")
_QUICKTIME_BOXES = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # what a file from before `ftyp` begins with
_MAX_BOXES = 100_000  # a file of the worst kind has one every eight bytes; a live one of an hour has some thousands


def read_video_kind(data: bytes, name: str) -> VideoKind | None:
    """None for bytes that are no video of a known kind. Raises InvalidRequest for one that is cut off.

    Only where the container tells its own length: MP4, MOV and 3GP.
    """
    kind = _kind(data)
    if kind in ("mp4", "mov", "three_gp") and not _boxes_are_whole(data):
        raise InvalidRequest(f"{name}: this {kind.upper().replace('THREE_GP', '3GP')} video is cut off.")
    return kind


def _kind(data: bytes) -> VideoKind | None:
    if data[4:8] == b"ftyp":
        return _kind_of_brand(data[8:12])
    if data.startswith(_EBML):
        return _kind_of_doctype(data)
    if data.startswith(b"FLV\x01"):
        return "flv"
    if data.startswith(_ASF):
        return "wmv"
    if data.startswith((_PACK, _SEQUENCE)):
        return "mpeg"
    return "mov" if data[4:8] in _QUICKTIME_BOXES else None


def _kind_of_brand(brand: bytes) -> VideoKind | None:
    if brand.startswith(_PICTURE_BRANDS):
        return None
    if brand == b"qt  ":
        return "mov"
    return "three_gp" if brand.startswith((b"3gp", b"3g2", b"3ge")) else "mp4"


def _kind_of_doctype(data: bytes) -> VideoKind | None:
    """By the element DocType in the EBML header, which is a few dozen bytes long. RFC 8794, 11.2.4."""
    at = data.find(b"\x42\x82", 4, 100)
    if at < 0 or at + 3 > len(data):
        return None
    doctype = data[at + 3 : at + 3 + (data[at + 2] & 0x7F)].rstrip(b"\0")
    return "webm" if doctype == b"webm" else "mkv" if doctype == b"matroska" else None


def _boxes_are_whole(data: bytes) -> bool:
    """Whether the index is there, and the file as long as its boxes say. What else is appended does no harm."""
    at, has_index = 0, False
    for _ in range(_MAX_BOXES):
        size, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if size == 1:  # a size of 64 bits follows
            size = int.from_bytes(data[at + 8 : at + 16])
        has_index = has_index or kind == b"moov"
        if size < 8:  # 0: the last box goes on to the end
            break
        at += size
        if at > len(data):
            return has_index and kind not in (b"moov", b"moof", b"mdat")
    return has_index
