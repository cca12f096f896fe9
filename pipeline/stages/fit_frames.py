"""fit_frames: pictures too large for the model are made smaller, too many are refused, and a video becomes pictures.

A video file goes untouched to a model that takes video. To every other it is several pictures in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from msgspec import Meta, Struct

from pipeline.errors import InvalidRequest
from pipeline.frames import Frame, Video
from pipeline.messages import Events, Inference, Message
from pipeline.presets import Limits
from pipeline.sampling import Sampler, as_video, in_place_of_video
from pipeline.schema import Positive, check
from pipeline.stage import Context, Proceed
from pipeline.workers.pool import WorkerPool
from pipeline.workers.process import WorkerDied

Seconds = Annotated[float, Meta(gt=0)]


class Options(Struct, forbid_unknown_fields=True):
    """`seconds`: how long one picture may take. `workers`: processes that unpack pictures, each one at a time.

    The same for videos; and `video_frames`: how many pictures are taken of one, where the model takes so many.
    """

    seconds: Seconds = 10.0
    workers: Positive = 2
    video_frames: Positive = 8
    video_seconds: Seconds = 20.0
    video_workers: Positive = 2


class FitFrames:
    def __init__(self, options: Options) -> None:
        self._seconds = options.seconds
        self._video_frames = options.video_frames
        self._workers = WorkerPool("pipeline.workers.pictures", options.workers)
        self._sampler = Sampler(options.video_seconds, options.video_workers)

    async def __call__(self, inference: Inference, proceed: Proceed) -> Events:
        if any(message.shown for message in inference.messages):
            if count := sum(len(message.frames) for message in inference.messages):
                _refuse(inference, count)
            fitted = tuple([await self._fit_message(inference, message) for message in inference.messages])
            if fitted != inference.messages:
                inference = replace(inference, messages=fitted)
        return await proceed(inference)

    async def close(self) -> None:
        await self._workers.close()
        await self._sampler.close()

    async def _fit_message(self, inference: Inference, message: Message) -> Message:
        if (video := message.video) is not None:
            return message if _takes_whole(inference, video) else await self._sample(inference, message, video)
        frames = message.frames
        if not frames:
            return message
        limits = inference.route.preset.limits
        if not all(_fits(frame, limits) for frame in frames):
            message = await self._fit_all(message, limits)
        return as_video(message) if inference.request.media_type == "video" else message

    async def _sample(self, inference: Inference, message: Message, video: Video) -> Message:
        _refuse(inference, 1)
        limits = inference.route.preset.limits
        count = min(self._video_frames, limits.frames)
        return in_place_of_video(message, await self._sampler.sample(video, "frames[0]", count, limits))

    async def _fit_all(self, message: Message, limits: Limits) -> Message:
        """One after the other, so that a request with many pictures takes one worker, and leaves the rest to others."""
        parts: list[Any] = []
        number = 0
        for part in message.parts:
            if not isinstance(part, Frame):
                parts.append(part)
                continue
            parts.append(part if _fits(part, limits) else await self._fit(part, f"frames[{number}]", limits))
            number += 1
        return replace(message, parts=tuple(parts))

    async def _fit(self, frame: Frame, name: str, limits: Limits) -> Frame:
        question = {
            "data": frame.data,
            "kind": frame.kind,
            "pixels": limits.frame_pixels,
            "bytes": limits.frame_bytes,
        }
        try:
            answer = await self._workers.call(question, self._seconds)
        except TimeoutError as error:
            raise _too_hard(frame, name, f"{self._seconds:g} s") from error
        except WorkerDied as error:
            raise _too_hard(frame, name, "what one picture may use") from error
        match answer.get("error"):
            case "memory":
                raise _too_hard(frame, name, "the memory that one picture may use")
            case "bytes":
                raise InvalidRequest(f"{name}: this picture can't be made to fit {limits.frame_bytes:,} bytes.")
            case "undecodable":
                raise InvalidRequest(f"{name}: the pixels of this {frame.kind.upper()} picture can't be decoded.")
        return Frame(answer["data"], answer["kind"], answer["width"], answer["height"])


def _takes_whole(inference: Inference, video: Video) -> bool:
    """Whether the model takes this file as it is. Raises InvalidRequest where it takes neither it nor pictures."""
    model, preset = inference.route.model, inference.route.preset
    if "video" not in preset.capabilities:
        return False
    if len(video.data) <= preset.limits.video_bytes:
        return True
    if "image" not in preset.capabilities:
        most = preset.limits.video_bytes
        raise InvalidRequest(
            f"frames: {model} takes a video of at most {most:,} bytes, and no pictures of a larger one."
        )
    return False


def _refuse(inference: Inference, count: int) -> None:
    """Raises InvalidRequest for a model that takes no pictures, or not so many."""
    model, preset = inference.route.model, inference.route.preset
    if "image" not in preset.capabilities:
        raise InvalidRequest(f"frames: {model} takes text alone, and {count} came; choose a model that takes images.")
    if count > preset.limits.frames:
        raise InvalidRequest(f"frames: {model} takes at most {preset.limits.frames} in one request, and {count} came.")


def _fits(frame: Frame, limits: Limits) -> bool:
    return frame.pixels <= limits.frame_pixels and len(frame.data) <= limits.frame_bytes


def _too_hard(frame: Frame, name: str, limit: str) -> InvalidRequest:
    return InvalidRequest(
        f"{name}: this picture ({frame.width} x {frame.height} pixels) could not be unpacked within {limit}; "
        "send a smaller one."
    )


def create(options: Mapping[str, Any], context: Context) -> FitFrames:
    return FitFrames(check(options, Options))
