"""Pictures and videos, told by their bytes; of a picture its kind, size and end, read without unpacking a pixel."""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import pybase64

from pipeline.errors import InvalidRequest
from pipeline.videos import VideoKind, read_video_kind

FrameKind = Literal["png", "jpeg", "gif", "webp"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture. `width` and `height` are in pixels; `base64` is the client's own, where it came so."""

    data: bytes
    kind: FrameKind
    width: int
    height: int
    base64: str | None = None

    @property
    def media_type(self) -> str:
        return f"image/{self.kind}"

    @property
    def pixels(self) -> int:
        return self.width * self.height

    def as_base64(self) -> str:
        return self.base64 if self.base64 is not None else pybase64.b64encode_as_string(self.data)


_VIDEO_TYPES = {"mkv": "x-matroska", "mov": "quicktime", "flv": "x-flv", "mpg": "mpeg", "wmv": "x-ms-wmv"}


@dataclass(frozen=True, slots=True)
class Video:
    """One whole video file. `kind` is its container, by Converse's names; `base64` is the client's own."""

    data: bytes
    kind: VideoKind
    base64: str | None = None

    @property
    def media_type(self) -> str:
        return "video/3gpp" if self.kind == "three_gp" else f"video/{_VIDEO_TYPES.get(self.kind, self.kind)}"

    def as_base64(self) -> str:
        return self.base64 if self.base64 is not None else pybase64.b64encode_as_string(self.data)


class EncodedFrame:
    """A frame as it came: base64, a `data:` URI, or bytes. However many models ask, it is decoded once.

    `name` is what errors call it (`frames[0]`).
    """

    __slots__ = ("_frame", "_source", "name")

    def __init__(self, source: str | bytes, name: str) -> None:
        self._source = source
        self._frame: Frame | Video | None = None
        self.name = name

    def decode(self) -> Frame | Video:
        """Raises InvalidRequest for bad base64, and for bytes that are no whole picture or video of a known kind."""
        if self._frame is None:
            self._frame = _decode(self._source, self.name)
        return self._frame


def _decode(source: str | bytes, name: str) -> Frame | Video:
    if isinstance(source, bytes):
        return _read(source, name)
    text = source
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise InvalidRequest(f"{name}: a data: URI has to hold base64 (data:image/png;base64,...).")
    try:
        data = pybase64.b64decode(text, validate=True)
    except ValueError as error:
        raise InvalidRequest(f"{name}: expected base64 or a data: URI; it is not valid base64.") from error
    return _read(data, name, text)


def _read(data: bytes, name: str, base64: str | None = None) -> Frame | Video:
    kind = read_video_kind(data, name)
    return read_frame(data, name, base64) if kind is None else Video(data, kind, base64)


def read_frame(data: bytes, name: str, base64: str | None = None) -> Frame:
    """The frame that these bytes are. Raises InvalidRequest where its kind, header or end can't be read."""
    kind = _kind(data)
    if kind is None:
        raise InvalidRequest(
            f"{name}: expected a PNG, JPEG, GIF or WebP picture, or a video (MP4, MOV, MKV, WebM, FLV, MPEG, WMV or "
            "3GP); these bytes are none of them."
        )
    try:
        width, height = _SIZES[kind](data)
    except (struct.error, IndexError) as error:
        raise InvalidRequest(f"{name}: the header of this {kind.upper()} picture can't be read.") from error
    if width < 1 or height < 1:
        raise InvalidRequest(f"{name}: this {kind.upper()} picture has no size.")
    if not _is_whole(kind, data):
        raise InvalidRequest(f"{name}: this {kind.upper()} picture is cut off: its end is missing.")
    return Frame(data, kind, width, height, base64)


def _kind(data: bytes) -> FrameKind | None:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    return None


def _png_size(data: bytes) -> tuple[int, int]:
    if data[12:16] != b"IHDR":
        raise IndexError("a PNG begins with its IHDR chunk")
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _gif_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _webp_size(data: bytes) -> tuple[int, int]:
    """By the first chunk: VP8 (lossy), VP8L (lossless) or VP8X (extended). RFC 9649."""
    chunk = data[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise IndexError("a WebP begins with a VP8, VP8L or VP8X chunk")


_MAX_BLOCKS = 100_000  # a file of the worst kind has one every two bytes, and would keep the loop for seconds
_SOF = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})  # the start-of-frame markers, ITU T.81 table B.1
_SOS, _EOI = 0xDA, b"\xff\xd9"


def _jpeg_segments(data: bytes) -> tuple[tuple[int, int], int]:
    """Walks the segments up to the pixels. Returns the size, and where the pixels begin."""
    size: tuple[int, int] | None = None
    at = 2
    for _ in range(_MAX_BLOCKS):
        if data[at] != 0xFF:
            raise IndexError("a segment begins with 0xFF")
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker in _SOF:
            height, width = struct.unpack_from(">HH", data, at + 5)
            size = (width, height)
        at += 2 + length
        if marker == _SOS:
            if size is None:
                raise IndexError("the size comes before the pixels")
            return size, at
    raise IndexError("more segments than any real JPEG has")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    return _jpeg_segments(data)[0]


def _gif_is_whole(data: bytes) -> bool:
    """Walks the blocks up to the trailer, for any byte inside of one may look like it. GIF89a, appendix B."""
    with suppress(IndexError):
        at, inside = 13 + _color_table(data[10]), False
        for _ in range(_MAX_BLOCKS):
            first = data[at]
            if inside:  # a sub-block: its length, and so many bytes; one without any is the last
                at, inside = at + 1 + first, first > 0
            elif first in b"!,":  # an extension, or an image; sub-blocks follow either
                at, inside = at + (2 if first == 0x21 else 11 + _color_table(data[at + 9])), True
            else:
                return first == 0x3B
    return False


def _color_table(flags: int) -> int:
    """How many bytes the color table takes that these flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _is_whole(kind: FrameKind, data: bytes) -> bool:
    """Whether the end is there. What some cameras append behind it does no harm."""
    match kind:
        case "png":
            return data.rfind(b"IEND\xaeB`\x82") > 0
        case "jpeg":
            return data.find(_EOI, _jpeg_segments(data)[1]) > 0  # a thumbnail's own end stands before the pixels
        case "gif":
            return _gif_is_whole(data)
        case "webp":
            return len(data) >= 8 + int.from_bytes(data[4:8], "little")


_SIZES = {"png": _png_size, "jpeg": _jpeg_size, "gif": _gif_size, "webp": _webp_size}
