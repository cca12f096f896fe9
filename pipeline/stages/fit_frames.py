"""fit_frames: pictures that are too large for the model are made smaller; too many of them are refused."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from msgspec import Meta, Struct

from pipeline.errors import InvalidRequest
from pipeline.frames import Frame
from pipeline.messages import Events, Inference, Message
from pipeline.presets import Limits
from pipeline.schema import Positive, check
from pipeline.stage import Context, Proceed
from pipeline.workers.process import WorkerDied, WorkerProcess


class Options(Struct, forbid_unknown_fields=True):
    """`seconds`: how long one picture may take. `workers`: processes that unpack pictures, each one at a time."""

    seconds: Annotated[float, Meta(gt=0)] = 10.0
    workers: Positive = 2


class FitFrames:
    def __init__(self, seconds: float, workers: int) -> None:
        self._seconds = seconds
        self._workers = [WorkerProcess("pipeline.workers.pictures") for _ in range(workers)]
        # Last in, first out: one that has run already is taken before one that would have to be started.
        self._idle: asyncio.LifoQueue[WorkerProcess] = asyncio.LifoQueue()
        for worker in self._workers:
            self._idle.put_nowait(worker)

    async def __call__(self, inference: Inference, proceed: Proceed) -> Events:
        message = inference.messages[-1]
        frames = message.frames
        if not frames:
            return await proceed(inference)
        _refuse(inference, len(frames))
        limits = inference.route.preset.limits
        if all(_fits(frame, limits) for frame in frames):
            return await proceed(inference)
        messages = (*inference.messages[:-1], await self._fit_all(message, limits))
        return await proceed(replace(inference, messages=messages))

    async def close(self) -> None:
        for worker in self._workers:
            await worker.close()

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
        worker = await self._idle.get()
        try:
            answer = await worker.call(question, self._seconds)
        except TimeoutError as error:
            raise _too_hard(frame, name, f"{self._seconds:g} s") from error
        except WorkerDied as error:
            raise _too_hard(frame, name, "what one picture may use") from error
        finally:
            self._idle.put_nowait(worker)
        match answer.get("error"):
            case "memory":
                raise _too_hard(frame, name, "the memory that one picture may use")
            case "bytes":
                raise InvalidRequest(f"{name}: this picture can't be made to fit {limits.frame_bytes:,} bytes.")
            case "undecodable":
                raise InvalidRequest(f"{name}: the pixels of this {frame.kind.upper()} picture can't be decoded.")
        return Frame(answer["data"], answer["kind"], answer["width"], answer["height"])


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
    given = check(options, Options)
    return FitFrames(given.seconds, given.workers)
