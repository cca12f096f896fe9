"""Pictures out of real videos of every kind, evenly spaced; and hostile ones, which cost their own request only."""

from __future__ import annotations

import resource
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.frames import Frame
from pipeline.workers import videos
from pipeline.workers.process import WorkerDied, WorkerProcess
from tests.aio import asynchronous
from tests.pipeline.drawn import opened
from tests.pipeline.filmed import FORMATS, film, number_of, sample, sound, talkie

QUESTION = {"kind": "mp4", "frames": 8, "pixels": 1_000_000, "bytes": 1_000_000}


@asynccontextmanager
async def worker() -> AsyncIterator[WorkerProcess]:
    process = WorkerProcess("pipeline.workers.videos")
    try:
        yield process
    finally:
        await process.close()


def asked(data: bytes, **more: Any) -> dict[str, Any]:
    """The worker's answer, without the process."""
    return videos.answer({**QUESTION, "data": data, **more})


def frames_of(answer: dict[str, Any]) -> list[Frame]:
    return [Frame(frame["data"], "jpeg", frame["width"], frame["height"]) for frame in answer["frames"]]


def numbers(answer: dict[str, Any]) -> list[int]:
    return [number_of(frame) for frame in frames_of(answer)]


def is_near(found: list[float], expected: list[float], by: float) -> bool:
    """Codecs change a grey by a step or two."""
    return len(found) == len(expected) and all(abs(a - b) <= by for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("kind", FORMATS)
def test_frames_are_evenly_spaced_in_order_and_say_when_they_are_shown(kind: str) -> None:
    told = asked(sample(kind), kind=kind)
    assert is_near([*numbers(told)], [2, 7, 12, 17, 22, 27, 32, 37], by=1)
    assert is_near([frame["at"] for frame in told["frames"]], [0.12 + 0.25 * number for number in range(8)], by=0.08)
    assert told["seconds"] == pytest.approx(2, abs=0.06)


@pytest.mark.parametrize("codec", ["libx265", "libsvtav1", "libvpx", "mjpeg"])
def test_other_codecs_are_read_too(codec: str) -> None:
    kind = "webm" if codec == "libvpx" else "mkv" if codec == "mjpeg" else "mp4"
    told = asked(film(kind, 8, codec=codec), kind=kind, frames=4)
    assert is_near([*numbers(told)], [1, 3, 5, 7], by=1)


def test_a_video_with_a_single_key_frame_is_decoded_up_to_each_moment() -> None:
    told = asked(film(keys=250), frames=4)
    assert is_near([*numbers(told)], [5, 15, 25, 35], by=1)


def test_sound_beside_the_pictures_is_passed_over() -> None:
    assert is_near([*numbers(asked(talkie()))], [2, 7, 12, 17, 22, 27, 32, 37], by=1)


def test_a_hurry_takes_what_is_cheap_and_stays_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "BUDGET", 1)
    assert is_near([*numbers(asked(film(keys=250), frames=4))], [0, 15, 25, 35], by=3)


def test_a_video_shorter_than_what_is_wanted_gives_each_frame_once() -> None:
    assert is_near([*numbers(asked(film(frames=3)))], [0, 1, 2], by=0.5)
    one = asked(film(frames=1))
    assert (numbers(one), one["seconds"]) == ([0], 0)


def test_a_variable_rate_is_evenly_spaced_in_time_not_in_frames() -> None:
    times = [0, 10, 20, 30, 40, 50, 60, 1000, 2000, 3000, 4000]
    told = asked(film("mkv", len(times), times=times), kind="mkv", frames=4)
    assert is_near([*numbers(told)], [6, 7, 8, 9], by=0.5)


def test_pictures_keep_within_the_limits_and_their_shape() -> None:
    small = frames_of(asked(sample("mp4"), pixels=600))
    assert {(frame.width, frame.height) for frame in small} == {(30, 20)}
    few = asked(film(size=(320, 240)), bytes=900)
    assert all(len(frame["data"]) <= 900 for frame in few["frames"])
    assert asked(sample("mp4"), bytes=100) == {"error": "bytes"}


@pytest.mark.parametrize(("turned", "black"), [(0, (5, 5)), (90, (5, -5)), (-90, (-5, 5)), (180, (-5, -5))])
def test_a_video_that_lies_on_its_side_is_stood_up(turned: int, black: tuple[int, int]) -> None:
    frame = frames_of(asked(film(turned=turned)))[-1]
    assert (frame.width < frame.height) == (turned in (90, -90))
    image = opened(frame).convert("L")
    corner = (black[0] % frame.width, black[1] % frame.height)
    assert isinstance(grey := image.getpixel(corner), int)
    assert grey < 40


# --- hostile ones ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mkv", "webm", "flv", "mpeg", "wmv"])
def test_one_that_is_cut_off_gives_what_there_is(kind: str) -> None:
    data = sample(kind)
    told = asked(data[: len(data) * 6 // 10], kind=kind)
    assert 0 < told["seconds"] < 1.5
    assert numbers(told) == sorted(numbers(told))


def test_one_without_pictures_is_told_apart() -> None:
    assert asked(sound()) == {"error": "empty"}
    assert asked(sound(cover=True)) == {"error": "empty"}


@pytest.mark.parametrize("codec", ["ffv1", "snow"])
def test_a_codec_that_is_not_on_the_list_is_not_run(codec: str) -> None:
    assert asked(film("mkv", 3, codec=codec), kind="mkv") == {"error": "codec"}


@pytest.mark.parametrize("kind", FORMATS)
def test_rubbish_behind_the_first_bytes_is_refused(kind: str) -> None:
    head = sample(kind)[:40]
    assert asked(head, kind=kind)["error"] in ("undecodable", "empty")
    assert asked(head + bytes(range(256)) * 400, kind=kind)["error"] in ("undecodable", "empty")


@pytest.mark.parametrize(
    "data", [b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", b"ffconcat version 1.0\nfile /etc/passwd\n"]
)
def test_a_playlist_opens_nothing(data: bytes) -> None:
    assert asked(data * 100, kind="mpeg")["error"] in ("undecodable", "empty")


def swollen(*, every: bool, size: tuple[int, int]) -> bytes:
    """A WebM whose header says 96 x 64, while a key frame of VP8 (or each) says that it is much larger."""
    data = film("webm", codec="libvpx")
    head, large = (b"\x9d\x01\x2a" + struct.pack("<HH", *pair) for pair in ((96, 64), size))
    assert data.count(head) > 1
    return data.replace(head, large) if every else large.join(data.rsplit(head, 1))


def test_pictures_larger_than_their_header_says_are_not_unpacked() -> None:
    assert asked(swollen(every=True, size=(16383, 16383)), kind="webm")["error"] in ("pixels", "undecodable")
    told = asked(swollen(every=False, size=(8000, 6000)), kind="webm")
    assert 0 < len(told["frames"]) < 8


def test_pictures_over_8k_are_refused_by_their_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "MAX_PIXELS", 96 * 64 - 1)
    assert asked(sample("mp4")) == {"error": "pixels"}


def test_one_with_more_packets_than_a_long_film_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "MAX_PACKETS", 39)
    assert asked(sample("mp4")) == {"error": "packets"}
    monkeypatch.setattr(videos, "MAX_PACKETS", 41)  # the end is one too
    assert "frames" in asked(sample("mp4"))


def endless(packets: int) -> bytes:
    """An MP4 whose index says that it has so many frames of one byte each, all of them behind each other."""
    data = bytearray(sample("mp4"))
    sizes, times, chunks = (data.find(name) for name in (b"stsz", b"stts", b"stsc"))
    data[sizes + 8 : sizes + 16] = struct.pack(">II", 1, packets)
    data[times + 12 : times + 16] = data[chunks + 16 : chunks + 20] = struct.pack(">I", packets)
    return bytes(data)


@asynchronous
async def test_one_that_never_ends_is_refused_or_its_worker_killed_and_the_next_request_works() -> None:
    async with worker() as process:
        for packets in (3_000_000, 0x7FFFFFFF):
            told = await process.call({**QUESTION, "data": endless(packets)}, 9)
            assert told["error"] in ("undecodable", "empty", "memory", "packets")
        assert len((await process.call({**QUESTION, "data": sample("mp4")}, 9))["frames"]) == 8


@asynchronous
async def test_what_takes_too_long_is_killed_and_the_next_request_works() -> None:
    async with worker() as process:
        await process.start()
        with pytest.raises(TimeoutError):
            await process.ask({**QUESTION, "data": sample("mp4")}, 0.001)
        assert process.pid is None
        assert numbers(await process.call({**QUESTION, "data": sample("mp4")}, 9))


def address_space(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


@asynchronous
async def test_what_takes_too_much_memory_costs_its_request_only() -> None:
    large = film("mkv", 2, size=(4096, 2160), codec="mjpeg")
    async with worker() as process:
        assert len((await process.call({**QUESTION, "kind": "mkv", "data": large}, 9))["frames"]) == 2
        assert process.pid is not None
        used = address_space(process.pid)
        resource.prlimit(process.pid, resource.RLIMIT_AS, (used, used))
        with suppress(WorkerDied):
            assert (await process.call({**QUESTION, "kind": "mkv", "data": large * 3}, 9))["error"] == "memory"
        process.kill()
        assert len((await process.call({**QUESTION, "data": sample("mp4")}, 9))["frames"]) == 8


def test_the_worker_has_a_limit_of_memory() -> None:
    assert videos.MEMORY < 2 * 1024**3
