"""A whole video file becomes evenly spaced pictures of it, for models that take no video; and what those are told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from pipeline.errors import InvalidRequest, Unavailable
from pipeline.frames import Frame, Video
from pipeline.messages import Message
from pipeline.presets import Limits
from pipeline.workers.pool import WorkerPool
from pipeline.workers.process import WorkerDied

HOW_TO_INSTALL = "Taking pictures out of a video needs PyAV, which is not installed here: `pip install av`."
MAX_PIXELS = 1920 * 1080  # of each picture: more says little more, and a request has to carry all of them

_SENTENCE = re.compile(r"\A(?:These \d+ images are frames|This image is a frame) of one video\b.*\n?")
_WHY_NOT = {
    "empty": "this {kind} file holds no moving pictures",
    "undecodable": "the pictures of this {kind} video can't be decoded",
    "codec": "the codec of this {kind} video is none that is read here; H.264, HEVC, AV1, VP8, VP9 and MPEG are",
    "pixels": "the pictures of this {kind} video are larger than 8K; send a smaller one",
    "packets": "this {kind} video is longer than about two hours; send a part of it",
    "memory": "this {kind} video could not be unpacked within the memory that one video may use; send a smaller one",
    "bytes": "the pictures of this {kind} video can't be made to fit {bytes:,} bytes each",
}


@dataclass(frozen=True, slots=True)
class Sampled:
    """Pictures of a video, when each is shown in it, and how long it is, all in seconds."""

    frames: tuple[Frame, ...]
    at: tuple[float, ...]
    seconds: float


class Sampler:
    """Has workers that take videos apart, each for at most so many seconds."""

    def __init__(self, seconds: float, workers: int) -> None:
        self.workers = WorkerPool("pipeline.workers.videos", workers)
        self._seconds = seconds

    async def sample(self, video: Video, name: str, count: int, limits: Limits) -> Sampled:
        """At most `count` pictures, within the limits of one frame. Raises InvalidRequest, Unavailable."""
        if find_spec("av") is None:
            raise Unavailable(HOW_TO_INSTALL)
        question = {
            "data": video.data,
            "kind": video.kind,
            "frames": count,
            "pixels": min(limits.frame_pixels, MAX_PIXELS),
            "bytes": limits.frame_bytes,
        }
        too_hard = f"{name}: this {_spell(video)} video could not be unpacked within"
        try:
            answer = await self.workers.call(question, self._seconds)
        except TimeoutError as error:
            raise InvalidRequest(f"{too_hard} {self._seconds:g} s; send a shorter or smaller one.") from error
        except WorkerDied as error:
            raise InvalidRequest(f"{too_hard} what one video may use; send a smaller one.") from error
        if "error" in answer:
            why = _WHY_NOT[answer["error"]].format(kind=_spell(video), bytes=limits.frame_bytes)
            raise InvalidRequest(f"{name}: {why}.")
        return _sampled(answer)

    async def close(self) -> None:
        await self.workers.close()


def _sampled(answer: dict[str, Any]) -> Sampled:
    taken = answer["frames"]
    frames = tuple(Frame(frame["data"], "jpeg", frame["width"], frame["height"]) for frame in taken)
    return Sampled(frames, tuple(frame["at"] for frame in taken), answer["seconds"])


def _spell(video: Video) -> str:
    return "3GP" if video.kind == "three_gp" else "WebM" if video.kind == "webm" else video.kind.upper()


def in_place_of_video(message: Message, sampled: Sampled) -> Message:
    """The message with pictures where its video was, and the sentence that says so."""
    parts: list[Any] = []
    for part in message.parts:
        parts += sampled.frames if isinstance(part, Video) else (part,)
    times = _list([f"{at:.1f}" for at in sampled.at])
    said = f"{_subject(len(sampled.frames))} of one video of {sampled.seconds:.1f} s, in order, taken at {times} s."
    return prefaced(replace(message, parts=tuple(parts)), said)


def as_video(message: Message) -> Message:
    """The message with the sentence that says that its pictures are a video's."""
    return prefaced(message, f"{_subject(len(message.frames))} of one video, in order.")


def prefaced(message: Message, sentence: str) -> Message:
    """The message with a sentence before its text."""
    parts = list(message.parts)
    for index, part in enumerate(parts):
        if isinstance(part, str):
            parts[index] = f"{sentence}\n{part}" if part else sentence
            return replace(message, parts=tuple(parts))
    return replace(message, parts=(sentence, *parts))


def without_sentence(text: str) -> str:
    """A text as it was before the sentence was put before it."""
    return _SENTENCE.sub("", text)


def _subject(count: int) -> str:
    return "This image is a frame" if count == 1 else f"These {count} images are frames"


def _list(items: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]]))
