"""Which frames of a video to take: the times of its packets come in, and what to decode for which moments comes out.

Nothing of a video is known for sure until it is read: a header's duration may be zero, wrong or missing. So all is
worked out from the packets themselves, which are read to the end without decoding one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

NEAR, IN_ITS_CELL = 0.25, 0.5  # how far from its moment a key frame may lie and still be taken, in distances


@dataclass(frozen=True, slots=True)
class Stretch:
    """Packets to decode, from a key frame on (`first` up to before `end`), and the moments to look at in them."""

    first: int
    end: int
    moments: list[int]


class Timed(Protocol):
    @property
    def pts(self) -> int | None: ...


Shown = TypeVar("Shown", bound=Timed)


def plan(times: Sequence[int], keys: Sequence[int], count: int, budget: int) -> tuple[list[Stretch], bool]:
    """What to decode for `count` evenly spaced frames, and whether it is more than `budget` packets.

    `times` are those of the packets, in the order in which they are decoded; `keys` are the indices of key frames.
    A key frame near a moment is taken in its place, as it costs one packet; the more so where that saves too much.
    """
    moments, distance = _moments(times, count)
    for tolerance in (NEAR, IN_ITS_CELL):
        stretches = _stretches(times, keys, [_or_key(at, times, keys, tolerance * distance) for at in moments])
        if sum(stretch.end - stretch.first for stretch in stretches) <= budget:
            return stretches, False
    return stretches, True


def length(times: Sequence[int]) -> float:
    """From the first frame to the end of the last, which is seen for about as long as the others."""
    frames = len(set(times))
    return (max(times) - min(times)) * frames / max(1, frames - 1)


def _moments(times: Sequence[int], count: int) -> tuple[list[int], float]:
    """The middle of each of `count` equal parts, or every frame where there are no more; and how far they lie apart."""
    ordered = sorted(set(times))
    if len(ordered) <= count:
        return ordered, 0.0
    distance = length(times) / count
    return [int(ordered[0] + (number + 0.5) * distance) for number in range(count)], distance


def _or_key(moment: int, times: Sequence[int], keys: Sequence[int], tolerance: float) -> int:
    nearest = min((times[key] for key in keys), key=lambda at: abs(at - moment))
    return nearest if abs(nearest - moment) <= tolerance else moment


def _stretches(times: Sequence[int], keys: Sequence[int], moments: Iterable[int]) -> list[Stretch]:
    starts = sorted(keys, key=lambda key: times[key])
    key_times = [times[key] for key in starts]
    stretches: dict[int, Stretch] = {}
    for moment in moments:
        first = starts[max(0, bisect_right(key_times, moment) - 1)]
        following = min((key for key in keys if key > first), default=len(times))
        # What is shown before this moment may be decoded after what is shown later.
        end = 1 + max((index for index in range(first, following) if times[index] <= moment), default=first)
        known = stretches.get(first)
        seen = known.moments if known else []
        if moment not in seen:
            stretches[first] = Stretch(first, max(end, known.end if known else 0), [*seen, moment])
    return sorted(stretches.values(), key=lambda stretch: stretch.moments)


def pick(frames: Iterable[Shown], moments: Sequence[int]) -> Iterator[Shown]:
    """For each moment the frame that is shown then, each frame once. `frames` come in the order in which they show."""
    waiting = list(moments)
    shown: Shown | None = None
    taken: Shown | None = None
    for frame in frames:
        at = frame.pts if frame.pts is not None else 0
        while waiting and at > waiting[0]:
            waiting.pop(0)
            chosen = shown if shown is not None else frame
            if chosen is not taken:
                yield chosen
            taken = chosen
        if not waiting:
            return
        shown = frame
    if waiting and shown is not None and shown is not taken:
        yield shown
