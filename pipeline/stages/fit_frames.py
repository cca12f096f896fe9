"""fit_frames: shrink pictures to the model's limits, reject too many, and sample a video for a model without video.

A model with video input gets a video file unchanged; every other model gets evenly spaced frames of it, in order.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

from msgspec import Meta, Struct

from pipeline.errors import InvalidRequest
from pipeline.media.frames import Frame, Video
from pipeline.media.sampling import VideoSampler, note_frames_of_video, replace_video_with_frames
from pipeline.messages import EventStream, Inference, Message
from pipeline.presets.models import Limits
from pipeline.presets.schema import PositiveInt
from pipeline.stage import Context, Proceed
from pipeline.workers.pool import HelperPool
from pipeline.workers.process import HelperDied


class FitFrames:
    class Options(Struct, forbid_unknown_fields=True):
        """`seconds`: the timeout of one picture. `workers`: helper processes for pictures, each takes one at a time.

        `video_seconds` and `video_workers` are the same for videos. `video_frames`: the frames sampled from a video, or
        fewer for a model that accepts fewer.
        """

        seconds: Annotated[float, Meta(gt=0)] = 10.0
        workers: PositiveInt = 2
        video_frames: PositiveInt = 8
        video_seconds: Annotated[float, Meta(gt=0)] = 20.0
        video_workers: PositiveInt = 2

    def __init__(self, options: Options, context: Context) -> None:
        self._picture_timeout = options.seconds
        self._max_video_frames = options.video_frames
        self._picture_helpers = HelperPool("pipeline.workers.pictures", options.workers)
        self._video_sampler = VideoSampler(options.video_seconds, options.video_workers)

    async def __call__(self, inference: Inference, proceed: Proceed) -> EventStream:
        if any(message.media_count for message in inference.messages):
            if count := sum(len(message.frames) for message in inference.messages):
                _check_frame_count(inference, count)
            fitted = tuple([await self._fit_message(inference, message) for message in inference.messages])
            if fitted != inference.messages:
                inference = replace(inference, messages=fitted)
        return await proceed(inference)

    async def close(self) -> None:
        await self._picture_helpers.close()
        await self._video_sampler.close()

    async def _fit_message(self, inference: Inference, message: Message) -> Message:
        if (video := message.video) is not None:
            if _accepts_video_file(inference, video):
                return message
            return await self._sample_video(inference, message, video)
        frames = message.frames
        if not frames:
            return message
        limits = inference.target.preset.limits
        if not all(_is_within_limits(frame, limits) for frame in frames):
            message = await self._fit_pictures(message, limits)
        return note_frames_of_video(message) if inference.request.media_type == "video" else message

    async def _sample_video(self, inference: Inference, message: Message, video: Video) -> Message:
        _check_frame_count(inference, 1)
        limits = inference.target.preset.limits
        count = min(self._max_video_frames, limits.frames)
        return replace_video_with_frames(message, await self._video_sampler.sample(video, "frames[0]", count, limits))

    async def _fit_pictures(self, message: Message, limits: Limits) -> Message:
        """Shrink the pictures one by one, so that a request with many of them occupies one helper process only."""
        parts: list[Any] = []
        index = 0
        for part in message.parts:
            if not isinstance(part, Frame):
                parts.append(part)
                continue
            fits = _is_within_limits(part, limits)
            parts.append(part if fits else await self._fit_picture(part, f"frames[{index}]", limits))
            index += 1
        return replace(message, parts=tuple(parts))

    async def _fit_picture(self, frame: Frame, name: str, limits: Limits) -> Frame:
        message = {
            "data": frame.data,
            "kind": frame.kind,
            "pixels": limits.frame_pixels,
            "bytes": limits.frame_bytes,
        }
        try:
            response = await self._picture_helpers.call(message, self._picture_timeout)
        except TimeoutError as error:
            raise _decode_limit_error(frame, name, f"{self._picture_timeout:g} s") from error
        except HelperDied as error:
            raise _decode_limit_error(frame, name, "what one picture may use") from error
        match response.get("error"):
            case "memory":
                raise _decode_limit_error(frame, name, "the memory that one picture may use")
            case "bytes":
                raise InvalidRequest(f"{name}: this picture can't be made to fit {limits.frame_bytes:,} bytes.")
            case "undecodable":
                raise InvalidRequest(f"{name}: the pixels of this {frame.kind.upper()} picture can't be decoded.")
        return Frame(response["data"], response["kind"], response["width"], response["height"])


def _accepts_video_file(inference: Inference, video: Video) -> bool:
    """Whether the model accepts this video file. Raises InvalidRequest if it accepts neither the file nor pictures."""
    model, preset = inference.target.model, inference.target.preset
    if "video" not in preset.capabilities:
        return False
    if len(video.data) <= preset.limits.video_bytes:
        return True
    if "image" not in preset.capabilities:
        max_bytes = preset.limits.video_bytes
        raise InvalidRequest(
            f"frames: {model} takes a video of at most {max_bytes:,} bytes, and no pictures of a larger one."
        )
    return False


def _check_frame_count(inference: Inference, count: int) -> None:
    """Raise InvalidRequest for a model that accepts no pictures, or fewer."""
    model, preset = inference.target.model, inference.target.preset
    if "image" not in preset.capabilities:
        raise InvalidRequest(f"frames: {model} takes text alone, and {count} came; choose a model that takes images.")
    if count > preset.limits.frames:
        raise InvalidRequest(f"frames: {model} takes at most {preset.limits.frames} in one request, and {count} came.")


def _is_within_limits(frame: Frame, limits: Limits) -> bool:
    return frame.pixels <= limits.frame_pixels and len(frame.data) <= limits.frame_bytes


def _decode_limit_error(frame: Frame, name: str, limit: str) -> InvalidRequest:
    return InvalidRequest(
        f"{name}: this picture ({frame.width} x {frame.height} pixels) could not be unpacked within {limit}; "
        "send a smaller one."
    )
