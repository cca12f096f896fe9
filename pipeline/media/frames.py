"""Frames of a request: pictures and whole videos, decoded from base64 and recognized by their bytes."""

from __future__ import annotations

from dataclasses import dataclass

import pybase64

from pipeline.errors import InvalidRequest
from pipeline.media.image_headers import ImageKind, detect_image_kind, is_image_complete, read_image_size
from pipeline.media.video_containers import VideoKind, read_video_kind

_VIDEO_SUBTYPES = {"mkv": "x-matroska", "mov": "quicktime", "flv": "x-flv", "mpg": "mpeg", "wmv": "x-ms-wmv"}


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture. `width` and `height` are in pixels; `base64` is the client's own encoding, if it sent base64."""

    data: bytes
    kind: ImageKind
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


@dataclass(frozen=True, slots=True)
class Video:
    """One whole video file. `kind` is its container, by Converse's names; `base64` as in `Frame`."""

    data: bytes
    kind: VideoKind
    base64: str | None = None

    @property
    def media_type(self) -> str:
        return "video/3gpp" if self.kind == "three_gp" else f"video/{_VIDEO_SUBTYPES.get(self.kind, self.kind)}"

    def as_base64(self) -> str:
        return self.base64 if self.base64 is not None else pybase64.b64encode_as_string(self.data)


class EncodedFrame:
    """A frame as the client sent it: base64, a `data:` URI, or bytes. It is decoded once for all models.

    `name` is its name in error messages (`frames[0]`).
    """

    __slots__ = ("_decoded", "_source", "name")

    def __init__(self, source: str | bytes, name: str) -> None:
        self._source = source
        self._decoded: Frame | Video | None = None
        self.name = name

    def decode(self) -> Frame | Video:
        """The picture or video. Raises InvalidRequest for bad base64 and for incomplete or unknown files."""
        if self._decoded is None:
            self._decoded = _decode_source(self._source, self.name)
        return self._decoded


def _decode_source(source: str | bytes, name: str) -> Frame | Video:
    if isinstance(source, bytes):
        return _read_media(source, name)
    text = source
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise InvalidRequest(f"{name}: a data: URI has to hold base64 (data:image/png;base64,...).")
    try:
        data = pybase64.b64decode(text, validate=True)
    except ValueError as error:
        raise InvalidRequest(f"{name}: expected base64 or a data: URI; it is not valid base64.") from error
    return _read_media(data, name, text)


def _read_media(data: bytes, name: str, base64: str | None = None) -> Frame | Video:
    kind = read_video_kind(data, name)
    return read_frame(data, name, base64) if kind is None else Video(data, kind, base64)


def read_frame(data: bytes, name: str, base64: str | None = None) -> Frame:
    """The picture in an image file. Raises InvalidRequest for an unknown kind, a broken header or a missing end."""
    kind = detect_image_kind(data)
    if kind is None:
        raise InvalidRequest(
            f"{name}: expected a PNG, JPEG, GIF or WebP picture, or a video (MP4, MOV, MKV, WebM, FLV, MPEG, WMV or "
            "3GP); these bytes are none of them."
        )
    try:
        width, height = read_image_size(data, kind)
    except ValueError as error:
        raise InvalidRequest(f"{name}: the header of this {kind.upper()} picture can't be read.") from error
    if width < 1 or height < 1:
        raise InvalidRequest(f"{name}: this {kind.upper()} picture has no size.")
    if not is_image_complete(data, kind):
        raise InvalidRequest(f"{name}: this {kind.upper()} picture is cut off: its end is missing.")
    return Frame(data, kind, width, height, base64)
