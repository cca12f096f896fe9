"""Sampling of video files for models without video input: evenly spaced frames, and a note to the model about them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from pipeline.errors import InvalidRequest, Unavailable
from pipeline.media.frames import Frame, Video
from pipeline.messages import Message
from pipeline.presets.models import Limits
from pipeline.workers.pool import HelperPool
from pipeline.workers.process import HelperDied

PYAV_MISSING = "Taking pictures out of a video needs PyAV, which is not installed here: `pip install av`."
MAX_FRAME_PIXELS = 1920 * 1080  # of each frame; larger frames add little, and one request carries all of them

_NOTE_PATTERN = re.compile(r"\A(?:These \d+ images are frames|This image is a frame) of one video\b.*\n?")
_PROBLEMS = {
    "empty": "this {kind} file holds no moving pictures",
    "undecodable": "the pictures of this {kind} video can't be decoded",
    "codec": "the codec of this {kind} video is none that is read here; H.264, HEVC, AV1, VP8, VP9 and MPEG are",
    "pixels": "the pictures of this {kind} video are larger than 8K; send a smaller one",
    "packets": "this {kind} video is longer than about two hours; send a part of it",
    "memory": "this {kind} video could not be unpacked within the memory that one video may use; send a smaller one",
    "bytes": "the pictures of this {kind} video can't be made to fit {bytes:,} bytes each",
}


@dataclass(frozen=True, slots=True)
class SampledVideo:
    """Frames of a video. `times` says when each is shown; times and `duration` are in seconds."""

    frames: tuple[Frame, ...]
    times: tuple[float, ...]
    duration: float


class VideoSampler:
    """Samples videos in a pool of helper processes. `timeout` is in seconds per video."""

    def __init__(self, timeout: float, processes: int) -> None:
        self.helpers = HelperPool("pipeline.workers.videos", processes)
        self._timeout = timeout

    async def sample(self, video: Video, name: str, count: int, limits: Limits) -> SampledVideo:
        """At most `count` frames, each within `limits`. `name` is the video's name in errors.

        Raises InvalidRequest for a video that can't be decoded, Unavailable without PyAV.
        """
        if find_spec("av") is None:
            raise Unavailable(PYAV_MISSING)
        message = {
            "data": video.data,
            "kind": video.kind,
            "frames": count,
            "pixels": min(limits.frame_pixels, MAX_FRAME_PIXELS),
            "bytes": limits.frame_bytes,
        }
        problem_prefix = f"{name}: this {_container_name(video)} video could not be unpacked within"
        try:
            response = await self.helpers.call(message, self._timeout)
        except TimeoutError as error:
            raise InvalidRequest(f"{problem_prefix} {self._timeout:g} s; send a shorter or smaller one.") from error
        except HelperDied as error:
            raise InvalidRequest(f"{problem_prefix} what one video may use; send a smaller one.") from error
        if "error" in response:
            problem = _PROBLEMS[response["error"]].format(kind=_container_name(video), bytes=limits.frame_bytes)
            raise InvalidRequest(f"{name}: {problem}.")
        return _parse_sampled_video(response)

    async def close(self) -> None:
        await self.helpers.close()


def _parse_sampled_video(response: dict[str, Any]) -> SampledVideo:
    samples = response["frames"]
    frames = tuple(Frame(frame["data"], "jpeg", frame["width"], frame["height"]) for frame in samples)
    return SampledVideo(frames, tuple(frame["at"] for frame in samples), response["seconds"])


def _container_name(video: Video) -> str:
    return "3GP" if video.kind == "three_gp" else "WebM" if video.kind == "webm" else video.kind.upper()


def replace_video_with_frames(message: Message, sampled: SampledVideo) -> Message:
    """The message with the frames in place of its video, and a note that says so."""
    parts: list[Any] = []
    for part in message.parts:
        parts += sampled.frames if isinstance(part, Video) else (part,)
    times = _join_with_and([f"{time:.1f}" for time in sampled.times])
    note = f"{_frames_are(len(sampled.frames))} of one video of {sampled.duration:.1f} s, in order, taken at {times} s."
    return prepend_note(replace(message, parts=tuple(parts)), note)


def note_frames_of_video(message: Message) -> Message:
    """The message with a note that its pictures are frames of a video."""
    return prepend_note(message, f"{_frames_are(len(message.frames))} of one video, in order.")


def prepend_note(message: Message, note: str) -> Message:
    """The message with a note before its text."""
    parts = list(message.parts)
    for index, part in enumerate(parts):
        if isinstance(part, str):
            parts[index] = f"{note}\n{part}" if part else note
            return replace(message, parts=tuple(parts))
    return replace(message, parts=(note, *parts))


def strip_note(text: str) -> str:
    """Remove the note from a text."""
    return _NOTE_PATTERN.sub("", text)


def _frames_are(count: int) -> str:
    return "This image is a frame" if count == 1 else f"These {count} images are frames"


def _join_with_and(items: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]]))
