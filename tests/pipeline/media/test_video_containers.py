"""Videos recognized by their bytes: real, truncated, damaged and random ones; and the media of a request."""

from __future__ import annotations

import base64
import random
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.envelope import MediaType
from pipeline.errors import InvalidRequest
from pipeline.media.decode import decode_messages
from pipeline.media.frames import EncodedFrame, Frame, Video
from pipeline.media.video_containers import read_video_kind
from pipeline.messages import Message
from tests.pipeline.media.make_pictures import plain_picture
from tests.pipeline.media.make_videos import FORMATS, audio_only, make_video, sample_video

every_kind = pytest.mark.parametrize("kind", FORMATS)
PICTURE = plain_picture(4, 4)


def encode_frame(source: str | bytes, index: int = 0) -> EncodedFrame:
    return EncodedFrame(source, f"frames[{index}]")


def make_box(kind: bytes, content: bytes = b"") -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


@every_kind
def test_container_is_detected_in_every_encoding(kind: str) -> None:
    data = sample_video(kind)
    text = base64.b64encode(data).decode()
    for source in (data, text, f"data:video/x-anything;base64,{text}", f"data:image/png;base64,{text}"):
        video = encode_frame(source).decode()
        assert isinstance(video, Video)
        assert (video.kind, video.data) == (kind, data)
        assert base64.b64decode(video.as_base64()) == data
        assert video.media_type.startswith("video/")


def test_base64_of_client_is_reused() -> None:
    text = base64.b64encode(sample_video("mp4")).decode()
    assert encode_frame(text).decode().as_base64() is text


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (make_box(b"ftyp", b"qt  \0\0\0\0") + make_box(b"moov"), "mov"),
        (make_box(b"wide") + make_box(b"mdat", b"x") + make_box(b"moov"), "mov"),
        (make_box(b"moov") + make_box(b"mdat", b"x"), "mov"),
        (make_box(b"ftyp", b"3g2a") + make_box(b"moov"), "three_gp"),
        (make_box(b"ftyp", b"iso6") + make_box(b"moov") + make_box(b"moof") + make_box(b"mdat", b"x"), "mp4"),
        (make_box(b"ftyp", b"M4V ") + make_box(b"moov") + b"\0\0\0\1mdat" + (18).to_bytes(8, "big") + b"xy", "mp4"),
        (make_box(b"ftyp", b"isom") + make_box(b"moov") + b"\0\0\0\0mdat to the end", "mp4"),
        (b"\0\0\1\xb3" + bytes(20), "mpeg"),
    ],
)
def test_rare_container_variants_are_detected(data: bytes, kind: str) -> None:
    assert read_video_kind(data, "frames[0]") == kind


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"avif", b"avis", b"jp2 "])
def test_image_brands_in_mp4_boxes_are_rejected(brand: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"frames\[0\]: expected a PNG.* these bytes are none"):
        encode_frame(make_box(b"ftyp", brand + bytes(8)) + make_box(b"mdat", b"x")).decode()


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"RIFF\0\0\0\0AVI LIST", b"#EXTM3U\n", b"OggS" + bytes(30), b"\x1aE\xdf\xa3" + bytes(40)]
)
def test_unknown_bytes_are_rejected_with_all_known_kinds(data: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"^frames\[0\]: expected a PNG.* picture, or a video \(MP4, MOV"):
        encode_frame(data).decode()


@pytest.mark.parametrize("kind", ["mp4", "mov", "three_gp"])
def test_truncated_mp4_mov_and_3gp_are_rejected(kind: str) -> None:
    data = sample_video(kind)
    for end in range(12, len(data), 7):
        with pytest.raises(InvalidRequest, match=r"^frames\[0\]: "):
            encode_frame(data[:end]).decode()


def test_mp4_truncated_after_its_index_is_rejected_and_trailing_bytes_are_ignored() -> None:
    data = make_box(b"ftyp", b"isom") + make_box(b"moov") + make_box(b"mdat", bytes(100))
    with pytest.raises(InvalidRequest, match="this MP4 video is cut off"):
        read_video_kind(data[:-1], "frames[0]")
    assert read_video_kind(data + bytes(9), "frames[0]") == "mp4"
    assert read_video_kind(data + b"a camera's own words", "frames[0]") == "mp4"


def test_mp4_of_empty_boxes_is_rejected_quickly() -> None:
    with pytest.raises(InvalidRequest, match="cut off"):
        read_video_kind(make_box(b"ftyp", b"isom") + make_box(b"free") * 4_000_000, "frames[0]")


@given(st.sampled_from(sorted(FORMATS)), st.randoms(use_true_random=False))
def test_damaged_video_is_read_or_rejected(kind: str, rng: random.Random) -> None:
    damaged = bytearray(sample_video(kind))
    for _ in range(rng.randrange(1, 5)):
        damaged[rng.randrange(min(len(damaged), 200))] = rng.randrange(256)
    with suppress(InvalidRequest):
        encode_frame(bytes(damaged[: rng.randrange(len(damaged))])).decode()


@given(
    st.sampled_from([b"", b"\0\0\0\x10ftypisom", b"\0\0\0\1moov", b"\x1aE\xdf\xa3\x9fB\x82", b"FLV\1", b"\0\0\1\xba"]),
    st.binary(),
)
def test_random_bytes_are_read_or_rejected(magic: bytes, rest: bytes) -> None:
    with suppress(InvalidRequest):
        assert encode_frame(magic + rest).decode().data == magic + rest


def decode_parts(*sources: bytes, media_type: MediaType) -> list[Any]:
    parts = tuple(encode_frame(source, index) for index, source in enumerate(sources))
    (message,) = decode_messages((Message("user", (*parts, "Hi")),), media_type)
    return [*message.parts]


def test_video_request_accepts_one_file_or_several_pictures() -> None:
    video, text = decode_parts(sample_video("mp4"), media_type="video")
    assert (video.kind, text) == ("mp4", "Hi")
    *pictures, text = decode_parts(*[PICTURE.data] * 3, media_type="video")
    assert [type(picture) for picture in pictures] == [Frame] * 3


def test_video_in_image_request_is_rejected() -> None:
    with pytest.raises(InvalidRequest, match=r'^frames\[1\]: this is a video \(WEBM\), .* set mediaType to "video"'):
        decode_parts(PICTURE.data, sample_video("webm"), media_type="image")


@pytest.mark.parametrize("more_sources", [[make_video()], [PICTURE.data], [PICTURE.data] * 2 + [make_video()]])
def test_several_videos_or_mixed_media_are_rejected(more_sources: list[bytes]) -> None:
    with pytest.raises(InvalidRequest, match="frames: expected either one whole video file or pictures"):
        decode_parts(sample_video("mp4"), *more_sources, media_type="video")


def test_message_video_property() -> None:
    video = encode_frame(sample_video("mp4")).decode()
    assert isinstance(video, Video)
    message = Message("user", (video, "Hi"))
    assert (message.video, message.frames, message.text) == (video, (), "Hi")
    assert Message("user", ("Hi", PICTURE)).video is None


def test_audio_only_mp4_is_detected_as_mp4() -> None:
    assert read_video_kind(audio_only(), "frames[0]") == "mp4"
