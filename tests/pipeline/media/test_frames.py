"""Pictures recognized by their bytes: real, truncated, damaged and random ones, and their encodings."""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import InvalidRequest
from pipeline.media.frames import EncodedFrame, read_frame

SIZE = (61, 37)


def draw_picture(mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A picture that compresses to more than a few bytes."""
    width, height = SIZE
    pixels = bytes((x * y * (seed + 3) + x) % 256 for y in range(height) for x in range(width))
    return Image.frombytes("L", SIZE, pixels).convert(mode)


def save_picture(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    draw_picture(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def save_animation(kind: str) -> bytes:
    return save_picture(kind, save_all=True, append_images=[draw_picture(seed=seed) for seed in (1, 2)], duration=50)


def jpeg_with_thumbnail() -> bytes:
    """A JPEG with another whole JPEG in its EXIF data, as cameras write it."""
    thumbnail = io.BytesIO()
    draw_picture().resize((16, 12)).save(thumbnail, "jpeg")
    exif = Image.Exif()
    exif[0x010E] = "x" * 40
    segment = b"Exif\0\0" + exif.tobytes()[6:] + thumbnail.getvalue()
    jpeg = save_picture("jpeg")
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


PICTURES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "png": ("png", lambda: save_picture("png")),
    "png with alpha": ("png", lambda: save_picture("png", "RGBA")),
    "png of one bit": ("png", lambda: save_picture("png", "1")),
    "jpeg": ("jpeg", lambda: save_picture("jpeg")),
    "gray jpeg": ("jpeg", lambda: save_picture("jpeg", "L")),
    "progressive jpeg": ("jpeg", lambda: save_picture("jpeg", progressive=True, quality=95)),
    "jpeg with restarts": ("jpeg", lambda: save_picture("jpeg", restart_marker_blocks=1)),
    "jpeg with a thumbnail": ("jpeg", jpeg_with_thumbnail),
    "gif": ("gif", lambda: save_picture("gif")),
    "animated gif": ("gif", lambda: save_animation("gif")),
    "gif with a comment": ("gif", lambda: save_picture("gif", comment=b"; ;\0;" * 60)),
    "lossy webp": ("webp", lambda: save_picture("webp")),
    "lossless webp": ("webp", lambda: save_picture("webp", lossless=True)),
    "webp with alpha": ("webp", lambda: save_picture("webp", "RGBA", quality=50)),
    "animated webp": ("webp", lambda: save_animation("webp")),
}
every_kind = pytest.mark.parametrize("name", PICTURES)


@cache
def sample_picture(name: str) -> bytes:
    return PICTURES[name][1]()


@every_kind
def test_kind_and_size_are_read(name: str) -> None:
    frame = read_frame(sample_picture(name), "frames[0]")
    assert (frame.kind, frame.width, frame.height) == (PICTURES[name][0], *SIZE)
    assert frame.media_type == f"image/{frame.kind}"
    assert frame.pixels == SIZE[0] * SIZE[1]


@every_kind
def test_truncated_picture_is_rejected(name: str) -> None:
    data = sample_picture(name)
    for end in range(len(data)):
        with pytest.raises(InvalidRequest, match=r"^frames\[0\]: "):
            read_frame(data[:end], "frames[0]")


@every_kind
@pytest.mark.parametrize("trailing_bytes", [b"\0" * 9, b"maker note; \xff\xd9 and more"])
def test_trailing_bytes_are_ignored(name: str, trailing_bytes: bytes) -> None:
    assert (read_frame(sample_picture(name) + trailing_bytes, "frames[0]").width) == SIZE[0]


@every_kind
@given(st.data())
def test_damaged_picture_is_read_or_rejected(name: str, data: st.DataObject) -> None:
    damaged = bytearray(sample_picture(name))
    for offset in data.draw(st.lists(st.integers(0, min(len(damaged), 200) - 1), max_size=4)):
        damaged[offset] = data.draw(st.integers(0, 255))
    with suppress(InvalidRequest):
        assert read_frame(bytes(damaged), "frames[0]").pixels > 0


@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF0000WEBPVP8"]), st.binary())
def test_random_bytes_are_read_or_rejected(magic: bytes, rest: bytes) -> None:
    with suppress(InvalidRequest):
        assert read_frame(magic + rest, "frames[0]").pixels > 0


@pytest.mark.parametrize("data", [b"", b"hello", b"BM" + bytes(60), b"%PDF-1.4", b"<svg/>"])
def test_unknown_kind_is_rejected(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="expected a PNG, JPEG, GIF or WebP picture"):
        read_frame(data, "frames[0]")


@pytest.mark.parametrize("unit", [b"\xff", b"\xff\xe0\x00\x02"], ids=["padding", "empty segments"])
def test_jpeg_with_endless_headers_is_rejected_quickly(unit: bytes) -> None:
    with pytest.raises(InvalidRequest, match="header of this JPEG picture"):
        read_frame(b"\xff\xd8" + unit * 20_000_000, "frames[0]")


def test_png_of_zero_size_is_rejected() -> None:
    data = bytearray(sample_picture("png"))
    data[16:20] = bytes(4)
    with pytest.raises(InvalidRequest, match="has no size"):
        read_frame(bytes(data), "frames[0]")


def encode_frame(source: str | bytes) -> EncodedFrame:
    return EncodedFrame(source, "frames[3]")


def test_base64_is_decoded_once_and_reused() -> None:
    text = base64.b64encode(sample_picture("png")).decode()
    frame = encode_frame(text)
    assert frame.decode() is frame.decode()
    assert frame.decode().data == sample_picture("png")
    assert frame.decode().as_base64() is text


@pytest.mark.parametrize("head", ["data:image/png;base64,", "data:image/jpeg;base64,", "data:;base64,"])
def test_kind_of_data_uri_comes_from_its_bytes(head: str) -> None:
    frame = encode_frame(head + base64.b64encode(sample_picture("gif")).decode()).decode()
    assert frame.kind == "gif"
    assert base64.b64decode(frame.as_base64()) == sample_picture("gif")


def test_raw_bytes_need_no_decoding() -> None:
    frame = encode_frame(sample_picture("png")).decode()
    assert frame.base64 is None
    assert base64.b64decode(frame.as_base64()) == sample_picture("png")


@pytest.mark.parametrize(
    "source", ["!!!!", "abc", "YWJj\nYWJj", "ab=c", "ünï=", "\ud800", "data:image/png;base64,%%%", "YWJj YWJj"]
)
def test_invalid_base64_is_rejected(source: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^frames\[3\]: expected base64 or a data: URI"):
        encode_frame(source).decode()


@pytest.mark.parametrize("source", ["data:", "data:image/png,abc", "data:image/png;base64", "data:image/png;base32,AA"])
def test_data_uri_without_base64_is_rejected(source: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^frames\[3\]: a data: URI has to hold base64"):
        encode_frame(source).decode()


@given(st.text())
def test_any_text_is_rejected_by_frame_name(source: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^frames\[3\]: "):
        encode_frame(source).decode()
