"""Selection of evenly spaced frames of a video: from the times of its packets to the segments that must be decoded.

The duration in a video's header may be zero, wrong or missing. So everything is computed from the packets themselves,
which are all read but not decoded. Times are integers in the time base of the stream.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

# How far a key frame may be from the timestamp that it replaces, as a part of the interval between timestamps.
KEYFRAME_TOLERANCE, MAX_KEYFRAME_TOLERANCE = 0.25, 0.5


@dataclass(frozen=True, slots=True)
class DecodeSegment:
    """Packets to decode, from a key frame at index `first` up to before index `end`, and the timestamps to sample."""

    first: int
    end: int
    timestamps: list[int]


class HasTimestamp(Protocol):
    @property
    def pts(self) -> int | None: ...


FrameT = TypeVar("FrameT", bound=HasTimestamp)


def plan_segments(
    times: Sequence[int], keyframes: Sequence[int], count: int, budget: int
) -> tuple[list[DecodeSegment], bool]:
    """The segments to decode for `count` evenly spaced frames, and whether they exceed `budget` packets.

    `times` are those of the packets in decoding order; `keyframes` are indices into it. A key frame near a timestamp
    replaces it, because it costs one packet; over budget, key frames further away do so too.
    """
    timestamps, interval = _even_timestamps(times, count)
    for tolerance in (KEYFRAME_TOLERANCE, MAX_KEYFRAME_TOLERANCE):
        snapped = [_snap_to_keyframe(timestamp, times, keyframes, tolerance * interval) for timestamp in timestamps]
        segments = _build_segments(times, keyframes, snapped)
        if sum(segment.end - segment.first for segment in segments) <= budget:
            return segments, False
    return segments, True


def estimate_duration(times: Sequence[int]) -> float:
    """The time from the first frame to the end of the last, which is assumed to last as long as the mean frame."""
    frames = len(set(times))
    return (max(times) - min(times)) * frames / max(1, frames - 1)


def _even_timestamps(times: Sequence[int], count: int) -> tuple[list[int], float]:
    """The middles of `count` equal parts and the interval between them; all frames and 0 if there are no more."""
    ordered = sorted(set(times))
    if len(ordered) <= count:
        return ordered, 0.0
    interval = estimate_duration(times) / count
    return [int(ordered[0] + (number + 0.5) * interval) for number in range(count)], interval


def _snap_to_keyframe(timestamp: int, times: Sequence[int], keyframes: Sequence[int], tolerance: float) -> int:
    nearest = min((times[index] for index in keyframes), key=lambda time: abs(time - timestamp))
    return nearest if abs(nearest - timestamp) <= tolerance else timestamp


def _build_segments(times: Sequence[int], keyframes: Sequence[int], timestamps: Iterable[int]) -> list[DecodeSegment]:
    ordered_keyframes = sorted(keyframes, key=lambda index: times[index])
    keyframe_times = [times[index] for index in ordered_keyframes]
    segments: dict[int, DecodeSegment] = {}
    for timestamp in timestamps:
        first = ordered_keyframes[max(0, bisect_right(keyframe_times, timestamp) - 1)]
        next_keyframe = min((index for index in keyframes if index > first), default=len(times))
        # Decoding order differs from presentation order: an earlier frame may be decoded after a later one.
        end = 1 + max((index for index in range(first, next_keyframe) if times[index] <= timestamp), default=first)
        previous = segments.get(first, DecodeSegment(first, 0, []))
        if timestamp not in previous.timestamps:
            segments[first] = DecodeSegment(first, max(end, previous.end), [*previous.timestamps, timestamp])
    return sorted(segments.values(), key=lambda segment: segment.timestamps)


def select_frames(frames: Iterable[FrameT], timestamps: Sequence[int]) -> Iterator[FrameT]:
    """Yield the frame that is visible at each timestamp, each frame once. `frames` are in presentation order."""
    remaining = list(timestamps)
    visible: FrameT | None = None
    yielded: FrameT | None = None
    for frame in frames:
        time = frame.pts if frame.pts is not None else 0
        while remaining and time > remaining[0]:
            remaining.pop(0)
            selected = visible if visible is not None else frame
            if selected is not yielded:
                yield selected
            yielded = selected
        if not remaining:
            return
        visible = frame
    if remaining and visible is not None and visible is not yielded:
        yield visible
