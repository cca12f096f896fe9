"""Frames from real videos of every kind, evenly spaced; and hostile videos, which fail only their own request."""

from __future__ import annotations

import resource
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.media.frames import Frame
from pipeline.workers import videos
from pipeline.workers.process import HelperDied, HelperProcess
from tests.async_tests import async_test
from tests.pipeline.media.make_pictures import open_picture
from tests.pipeline.media.make_videos import (
    FORMATS,
    audio_only,
    make_video,
    read_frame_number,
    sample_video,
    video_with_audio,
)

MESSAGE = {"kind": "mp4", "frames": 8, "pixels": 1_000_000, "bytes": 1_000_000}


@asynccontextmanager
async def video_helper() -> AsyncIterator[HelperProcess]:
    process = HelperProcess("pipeline.workers.videos")
    try:
        yield process
    finally:
        await process.close()


def handle(data: bytes, **changes: Any) -> dict[str, Any]:
    """The response of the helper, without a process."""
    return videos.handle({**MESSAGE, "data": data, **changes})


def parse_frames(response: dict[str, Any]) -> list[Frame]:
    return [Frame(frame["data"], "jpeg", frame["width"], frame["height"]) for frame in response["frames"]]


def read_frame_numbers(response: dict[str, Any]) -> list[int]:
    return [read_frame_number(frame) for frame in parse_frames(response)]


def are_close(actual: list[float], expected: list[float], tolerance: float) -> bool:
    """Whether the numbers are equal, except for what codecs change: a grey level or two."""
    return len(actual) == len(expected) and all(abs(a - b) <= tolerance for a, b in zip(actual, expected, strict=True))


@pytest.mark.parametrize("kind", FORMATS)
def test_frames_are_evenly_spaced_and_have_their_times(kind: str) -> None:
    response = handle(sample_video(kind), kind=kind)
    assert are_close([*read_frame_numbers(response)], [2, 7, 12, 17, 22, 27, 32, 37], tolerance=1)
    assert are_close(
        [frame["at"] for frame in response["frames"]], [0.12 + 0.25 * number for number in range(8)], tolerance=0.08
    )
    assert response["seconds"] == pytest.approx(2, abs=0.06)


@pytest.mark.parametrize("codec", ["libx265", "libsvtav1", "libvpx", "mjpeg"])
def test_other_codecs_are_decoded(codec: str) -> None:
    kind = "webm" if codec == "libvpx" else "mkv" if codec == "mjpeg" else "mp4"
    response = handle(make_video(kind, 8, codec=codec), kind=kind, frames=4)
    assert are_close([*read_frame_numbers(response)], [1, 3, 5, 7], tolerance=1)


def test_video_with_one_keyframe_is_decoded_up_to_each_timestamp() -> None:
    response = handle(make_video(keyframe_interval=250), frames=4)
    assert are_close([*read_frame_numbers(response)], [5, 15, 25, 35], tolerance=1)


def test_audio_stream_is_ignored() -> None:
    assert are_close([*read_frame_numbers(handle(video_with_audio()))], [2, 7, 12, 17, 22, 27, 32, 37], tolerance=1)


def test_over_budget_decoding_skips_frames_and_stays_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "DECODE_BUDGET_PIXELS", 1)
    assert are_close(
        [*read_frame_numbers(handle(make_video(keyframe_interval=250), frames=4))], [0, 15, 25, 35], tolerance=3
    )


def test_short_video_yields_each_frame_once() -> None:
    assert are_close([*read_frame_numbers(handle(make_video(frames=3)))], [0, 1, 2], tolerance=0.5)
    response = handle(make_video(frames=1))
    assert (read_frame_numbers(response), response["seconds"]) == ([0], 0)


def test_variable_frame_rate_is_sampled_evenly_in_time() -> None:
    times = [0, 10, 20, 30, 40, 50, 60, 1000, 2000, 3000, 4000]
    response = handle(make_video("mkv", len(times), times=times), kind="mkv", frames=4)
    assert are_close([*read_frame_numbers(response)], [6, 7, 8, 9], tolerance=0.5)


def test_frames_are_within_limits_with_same_aspect_ratio() -> None:
    small = parse_frames(handle(sample_video("mp4"), pixels=600))
    assert {(frame.width, frame.height) for frame in small} == {(30, 20)}
    few = handle(make_video(size=(320, 240)), bytes=900)
    assert all(len(frame["data"]) <= 900 for frame in few["frames"])
    assert handle(sample_video("mp4"), bytes=100) == {"error": "bytes"}


@pytest.mark.parametrize(("rotation", "black"), [(0, (5, 5)), (90, (5, -5)), (-90, (-5, 5)), (180, (-5, -5))])
def test_rotated_video_is_turned_upright(rotation: int, black: tuple[int, int]) -> None:
    frame = parse_frames(handle(make_video(rotation=rotation)))[-1]
    assert (frame.width < frame.height) == (rotation in (90, -90))
    image = open_picture(frame).convert("L")
    corner = (black[0] % frame.width, black[1] % frame.height)
    assert isinstance(grey := image.getpixel(corner), int)
    assert grey < 40


# --- hostile videos --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mkv", "webm", "flv", "mpeg", "wmv"])
def test_truncated_video_yields_its_readable_frames(kind: str) -> None:
    data = sample_video(kind)
    response = handle(data[: len(data) * 6 // 10], kind=kind)
    assert 0 < response["seconds"] < 1.5
    assert read_frame_numbers(response) == sorted(read_frame_numbers(response))


def test_audio_only_file_is_empty() -> None:
    assert handle(audio_only()) == {"error": "empty"}
    assert handle(audio_only(cover=True)) == {"error": "empty"}


@pytest.mark.parametrize("codec", ["ffv1", "snow"])
def test_unlisted_codec_is_rejected(codec: str) -> None:
    assert handle(make_video("mkv", 3, codec=codec), kind="mkv") == {"error": "codec"}


@pytest.mark.parametrize("kind", FORMATS)
def test_garbage_after_the_header_is_rejected(kind: str) -> None:
    head = sample_video(kind)[:40]
    assert handle(head, kind=kind)["error"] in ("undecodable", "empty")
    assert handle(head + bytes(range(256)) * 400, kind=kind)["error"] in ("undecodable", "empty")


@pytest.mark.parametrize(
    "data", [b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile /etc/passwd\n"]
)
def test_playlist_opens_no_file(data: bytes) -> None:
    assert handle(data * 100, kind="mpeg")["error"] in ("undecodable", "empty")


def make_oversized_video(*, every: bool, size: tuple[int, int]) -> bytes:
    """A WebM whose header says 96 x 64, while one VP8 key frame (or every one) says that it is much larger."""
    data = make_video("webm", codec="libvpx")
    head, large = (b"\x9d\x01\x2a" + struct.pack("<HH", *pair) for pair in ((96, 64), size))
    assert data.count(head) > 1
    return data.replace(head, large) if every else large.join(data.rsplit(head, 1))


def test_frames_larger_than_the_header_says_are_not_decoded() -> None:
    assert handle(make_oversized_video(every=True, size=(16383, 16383)), kind="webm")["error"] in (
        "pixels",
        "undecodable",
    )
    response = handle(make_oversized_video(every=False, size=(8000, 6000)), kind="webm")
    assert 0 < len(response["frames"]) < 8


def test_frames_over_8k_are_rejected_by_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "MAX_FRAME_PIXELS", 96 * 64 - 1)
    assert handle(sample_video("mp4")) == {"error": "pixels"}


def test_too_many_packets_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "MAX_PACKETS", 39)
    assert handle(sample_video("mp4")) == {"error": "packets"}
    monkeypatch.setattr(videos, "MAX_PACKETS", 41)  # the end of the stream counts as one
    assert "frames" in handle(sample_video("mp4"))


def make_endless_video(packets: int) -> bytes:
    """An MP4 whose index claims this many frames of one byte each, one after the other."""
    data = bytearray(sample_video("mp4"))
    sizes, times, chunks = (data.find(name) for name in (b"stsz", b"stts", b"stsc"))
    data[sizes + 8 : sizes + 16] = struct.pack(">II", 1, packets)
    data[times + 12 : times + 16] = data[chunks + 16 : chunks + 20] = struct.pack(">I", packets)
    return bytes(data)


@async_test
async def test_endless_video_is_rejected_and_the_next_request_succeeds() -> None:
    async with video_helper() as process:
        for packets in (3_000_000, 0x7FFFFFFF):
            response = await process.call({**MESSAGE, "data": make_endless_video(packets)}, 9)
            assert response["error"] in ("undecodable", "empty", "memory", "packets")
        assert len((await process.call({**MESSAGE, "data": sample_video("mp4")}, 9))["frames"]) == 8


@async_test
async def test_timeout_kills_the_helper_and_the_next_request_succeeds() -> None:
    async with video_helper() as process:
        await process.start()
        with pytest.raises(TimeoutError):
            await process.request({**MESSAGE, "data": sample_video("mp4")}, 0.001)
        assert process.pid is None
        assert read_frame_numbers(await process.call({**MESSAGE, "data": sample_video("mp4")}, 9))


def read_address_space(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


@async_test
async def test_out_of_memory_fails_one_request_only() -> None:
    large = make_video("mkv", 2, size=(4096, 2160), codec="mjpeg")
    async with video_helper() as process:
        assert len((await process.call({**MESSAGE, "kind": "mkv", "data": large}, 9))["frames"]) == 2
        assert process.pid is not None
        used = read_address_space(process.pid)
        resource.prlimit(process.pid, resource.RLIMIT_AS, (used, used))
        with suppress(HelperDied):
            assert (await process.call({**MESSAGE, "kind": "mkv", "data": large * 3}, 9))["error"] == "memory"
        process.kill()
        assert len((await process.call({**MESSAGE, "data": sample_video("mp4")}, 9))["frames"]) == 8


def test_memory_limit_is_below_2_gib() -> None:
    assert videos.MEMORY_LIMIT < 2 * 1024**3
