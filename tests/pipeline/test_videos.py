"""Videos are told by their bytes: real ones of every kind, cut off, damaged, and rubbish; what a request may hold."""

from __future__ import annotations

import base64
import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InvalidRequest
from pipeline.frames import EncodedFrame, Frame, Video
from pipeline.media import decode_all
from pipeline.messages import MediaType, Message
from pipeline.videos import read_video_kind
from tests.pipeline.drawn import plain
from tests.pipeline.filmed import FORMATS, film, sample, sound

every_kind = pytest.mark.parametrize("kind", FORMATS)
PICTURE = plain(4, 4)


def encoded(source: str | bytes, index: int = 0) -> EncodedFrame:
    return EncodedFrame(source, f"frames[{index}]")


def box(kind: bytes, content: bytes = b"") -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


@every_kind
def test_a_video_is_told_by_its_bytes_however_it_comes(kind: str) -> None:
    data = sample(kind)
    text = base64.b64encode(data).decode()
    for source in (data, text, f"data:video/x-anything;base64,{text}", f"data:image/png;base64,{text}"):
        video = encoded(source).decode()
        assert isinstance(video, Video)
        assert (video.kind, video.data) == (kind, data)
        assert base64.b64decode(video.as_base64()) == data
        assert video.media_type.startswith("video/")


def test_the_clients_own_base64_is_kept() -> None:
    text = base64.b64encode(sample("mp4")).decode()
    assert encoded(text).decode().as_base64() is text


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (box(b"ftyp", b"qt  \0\0\0\0") + box(b"moov"), "mov"),
        (box(b"wide") + box(b"mdat", b"x") + box(b"moov"), "mov"),
        (box(b"moov") + box(b"mdat", b"x"), "mov"),
        (box(b"ftyp", b"3g2a") + box(b"moov"), "three_gp"),
        (box(b"ftyp", b"iso6") + box(b"moov") + box(b"moof") + box(b"mdat", b"x"), "mp4"),
        (box(b"ftyp", b"M4V ") + box(b"moov") + b"\0\0\0\1mdat" + (18).to_bytes(8, "big") + b"xy", "mp4"),
        (box(b"ftyp", b"isom") + box(b"moov") + b"\0\0\0\0mdat to the end", "mp4"),
        (b"\0\0\1\xb3" + bytes(20), "mpeg"),
    ],
)
def test_the_less_usual_forms_are_known_too(data: bytes, kind: str) -> None:
    assert read_video_kind(data, "frames[0]") == kind


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"avif", b"avis", b"jp2 "])
def test_pictures_in_the_boxes_of_an_mp4_are_no_videos(brand: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"frames\[0\]: expected a PNG.* these bytes are none"):
        encoded(box(b"ftyp", brand + bytes(8)) + box(b"mdat", b"x")).decode()


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"RIFF\0\0\0\0AVI LIST", b"#EXTM3U\n", b"OggS" + bytes(30), b"\x1aE\xdf\xa3" + bytes(40)]
)
def test_bytes_that_are_neither_picture_nor_video_get_a_sentence_that_names_both(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"^frames\[0\]: expected a PNG.* picture, or a video \(MP4, MOV"):
        encoded(data).decode()


@pytest.mark.parametrize("kind", ["mp4", "mov", "three_gp"])
def test_one_that_tells_its_length_is_refused_where_it_is_cut_off(kind: str) -> None:
    data = sample(kind)
    for end in range(12, len(data), 7):
        with pytest.raises(InvalidRequest, match=r"^frames\[0\]: "):
            encoded(data[:end]).decode()


def test_one_cut_off_behind_its_index_is_refused_too_and_junk_behind_its_end_does_no_harm() -> None:
    data = box(b"ftyp", b"isom") + box(b"moov") + box(b"mdat", bytes(100))
    with pytest.raises(InvalidRequest, match="this MP4 video is cut off"):
        read_video_kind(data[:-1], "frames[0]")
    assert read_video_kind(data + bytes(9), "frames[0]") == "mp4"
    assert read_video_kind(data + b"a camera's own words", "frames[0]") == "mp4"


def test_a_file_of_empty_boxes_is_looked_through_quickly() -> None:
    with pytest.raises(InvalidRequest, match="cut off"):
        read_video_kind(box(b"ftyp", b"isom") + box(b"free") * 4_000_000, "frames[0]")


@given(st.sampled_from(sorted(FORMATS)), st.randoms(use_true_random=False))
def test_a_damaged_video_is_read_or_refused(kind: str, chance: random.Random) -> None:
    damaged = bytearray(sample(kind))
    for _ in range(chance.randrange(1, 5)):
        damaged[chance.randrange(min(len(damaged), 200))] = chance.randrange(256)
    with suppress(InvalidRequest):
        encoded(bytes(damaged[: chance.randrange(len(damaged))])).decode()


@given(
    st.sampled_from([b"", b"\0\0\0\x10ftypisom", b"\0\0\0\1moov", b"\x1aE\xdf\xa3\x9fB\x82", b"FLV\1", b"\0\0\1\xba"]),
    st.binary(),
)
def test_random_bytes_are_read_or_refused(magic: bytes, rest: bytes) -> None:
    with suppress(InvalidRequest):
        assert encoded(magic + rest).decode().data == magic + rest


def decoded(*sources: bytes, media_type: MediaType) -> list[Any]:
    parts = tuple(encoded(source, index) for index, source in enumerate(sources))
    (message,) = decode_all((Message("user", (*parts, "Hi")),), media_type)
    return [*message.parts]


def test_a_request_for_video_holds_one_file_or_pictures_in_order() -> None:
    video, text = decoded(sample("mp4"), media_type="video")
    assert (video.kind, text) == ("mp4", "Hi")
    *pictures, text = decoded(*[PICTURE.data] * 3, media_type="video")
    assert [type(picture) for picture in pictures] == [Frame] * 3


def test_a_video_where_pictures_are_announced_is_refused_and_told_what_to_set() -> None:
    with pytest.raises(InvalidRequest, match=r'^frames\[1\]: this is a video \(WEBM\), .* set mediaType to "video"'):
        decoded(PICTURE.data, sample("webm"), media_type="image")


@pytest.mark.parametrize("others", [[film()], [PICTURE.data], [PICTURE.data] * 2 + [film()]])
def test_several_videos_or_a_mix_are_refused(others: list[bytes]) -> None:
    with pytest.raises(InvalidRequest, match="frames: expected either one whole video file or pictures"):
        decoded(sample("mp4"), *others, media_type="video")


def test_a_message_knows_its_video() -> None:
    video = encoded(sample("mp4")).decode()
    assert isinstance(video, Video)
    message = Message("user", (video, "Hi"))
    assert (message.video, message.frames, message.text) == (video, (), "Hi")
    assert Message("user", ("Hi", PICTURE)).video is None


def test_sound_alone_is_told_apart_only_when_it_is_unpacked() -> None:
    assert read_video_kind(sound(), "frames[0]") == "mp4"
