"""Pictures are told by their bytes: real ones of every kind, cut anywhere, with junk behind them, and rubbish."""

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
from pipeline.frames import EncodedFrame, read_frame

SIZE = (61, 37)


def picture(mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Something that compresses to more than a few bytes."""
    width, height = SIZE
    pixels = bytes((x * y * (seed + 3) + x) % 256 for y in range(height) for x in range(width))
    return Image.frombytes("L", SIZE, pixels).convert(mode)


def saved(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def animated(kind: str) -> bytes:
    return saved(kind, save_all=True, append_images=[picture(seed=seed) for seed in (1, 2)], duration=50)


def with_thumbnail() -> bytes:
    """A JPEG whose EXIF holds another whole JPEG, as cameras make them."""
    small = io.BytesIO()
    picture().resize((16, 12)).save(small, "jpeg")
    exif = Image.Exif()
    exif[0x010E] = "x" * 40
    segment = b"Exif\0\0" + exif.tobytes()[6:] + small.getvalue()
    whole = saved("jpeg")
    return whole[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + whole[2:]


KINDS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "png": ("png", lambda: saved("png")),
    "png with alpha": ("png", lambda: saved("png", "RGBA")),
    "png of one bit": ("png", lambda: saved("png", "1")),
    "jpeg": ("jpeg", lambda: saved("jpeg")),
    "gray jpeg": ("jpeg", lambda: saved("jpeg", "L")),
    "progressive jpeg": ("jpeg", lambda: saved("jpeg", progressive=True, quality=95)),
    "jpeg with restarts": ("jpeg", lambda: saved("jpeg", restart_marker_blocks=1)),
    "jpeg with a thumbnail": ("jpeg", with_thumbnail),
    "gif": ("gif", lambda: saved("gif")),
    "animated gif": ("gif", lambda: animated("gif")),
    "gif with a comment": ("gif", lambda: saved("gif", comment=b"; ;\0;" * 60)),
    "lossy webp": ("webp", lambda: saved("webp")),
    "lossless webp": ("webp", lambda: saved("webp", lossless=True)),
    "webp with alpha": ("webp", lambda: saved("webp", "RGBA", quality=50)),
    "animated webp": ("webp", lambda: animated("webp")),
}
every_kind = pytest.mark.parametrize("name", KINDS)


@cache
def sample(name: str) -> bytes:
    return KINDS[name][1]()


@every_kind
def test_kind_and_size_are_read(name: str) -> None:
    frame = read_frame(sample(name), "frames[0]")
    assert (frame.kind, frame.width, frame.height) == (KINDS[name][0], *SIZE)
    assert frame.media_type == f"image/{frame.kind}"
    assert frame.pixels == SIZE[0] * SIZE[1]


@every_kind
def test_cut_anywhere_it_is_refused(name: str) -> None:
    data = sample(name)
    for end in range(len(data)):
        with pytest.raises(InvalidRequest, match=r"^frames\[0\]: "):
            read_frame(data[:end], "frames[0]")


@every_kind
@pytest.mark.parametrize("junk", [b"\0" * 9, b"maker note; \xff\xd9 and more"])
def test_junk_behind_its_end_does_no_harm(name: str, junk: bytes) -> None:
    assert (read_frame(sample(name) + junk, "frames[0]").width) == SIZE[0]


@every_kind
@given(st.data())
def test_a_damaged_picture_is_read_or_refused(name: str, data: st.DataObject) -> None:
    damaged = bytearray(sample(name))
    for at in data.draw(st.lists(st.integers(0, min(len(damaged), 200) - 1), max_size=4)):
        damaged[at] = data.draw(st.integers(0, 255))
    with suppress(InvalidRequest):
        assert read_frame(bytes(damaged), "frames[0]").pixels > 0


@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF0000WEBPVP8"]), st.binary())
def test_random_bytes_are_read_or_refused(magic: bytes, rest: bytes) -> None:
    with suppress(InvalidRequest):
        assert read_frame(magic + rest, "frames[0]").pixels > 0


@pytest.mark.parametrize("data", [b"", b"hello", b"BM" + bytes(60), b"%PDF-1.4", b"<svg/>"])
def test_bytes_that_are_no_known_picture_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match="expected a PNG, JPEG, GIF or WebP picture"):
        read_frame(data, "frames[0]")


@pytest.mark.parametrize("unit", [b"\xff", b"\xff\xe0\x00\x02"], ids=["padding", "empty segments"])
def test_a_jpeg_that_never_comes_to_the_point_is_refused_quickly(unit: bytes) -> None:
    with pytest.raises(InvalidRequest, match="header of this JPEG picture"):
        read_frame(b"\xff\xd8" + unit * 20_000_000, "frames[0]")


def test_a_png_without_a_size_is_refused() -> None:
    data = bytearray(sample("png"))
    data[16:20] = bytes(4)
    with pytest.raises(InvalidRequest, match="has no size"):
        read_frame(bytes(data), "frames[0]")


def encoded(source: str | bytes) -> EncodedFrame:
    return EncodedFrame(source, "frames[3]")


def test_base64_is_decoded_once_and_kept_for_those_who_want_it() -> None:
    text = base64.b64encode(sample("png")).decode()
    frame = encoded(text)
    assert frame.decode() is frame.decode()
    assert frame.decode().data == sample("png")
    assert frame.decode().as_base64() is text


@pytest.mark.parametrize("head", ["data:image/png;base64,", "data:image/jpeg;base64,", "data:;base64,"])
def test_a_data_uri_is_told_by_its_bytes_not_by_what_it_says(head: str) -> None:
    frame = encoded(head + base64.b64encode(sample("gif")).decode()).decode()
    assert frame.kind == "gif"
    assert base64.b64decode(frame.as_base64()) == sample("gif")


def test_raw_bytes_are_taken_as_they_are() -> None:
    frame = encoded(sample("png")).decode()
    assert frame.base64 is None
    assert base64.b64decode(frame.as_base64()) == sample("png")


@pytest.mark.parametrize(
    "source", ["!!!!", "abc", "YWJj\nYWJj", "ab=c", "ünï=", "\ud800", "data:image/png;base64,%%%", "YWJj YWJj"]
)
def test_bad_base64_is_refused(source: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^frames\[3\]: expected base64 or a data: URI"):
        encoded(source).decode()


@pytest.mark.parametrize("source", ["data:", "data:image/png,abc", "data:image/png;base64", "data:image/png;base32,AA"])
def test_a_data_uri_without_base64_is_refused(source: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^frames\[3\]: a data: URI has to hold base64"):
        encoded(source).decode()


@given(st.text())
def test_any_text_is_refused_in_a_sentence(source: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^frames\[3\]: "):
        encoded(source).decode()
