"""Which frames are taken: evenly spaced ones, key frames where they lie near, and never one twice."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from pipeline.workers.spacing import length, pick, plan

PLENTY = 10**9


@dataclass(frozen=True)
class Shown:
    pts: int


def taken(times: list[int], keys: list[int], count: int, budget: int = PLENTY) -> list[int]:
    """When the frames that are taken are shown, by a decoder that does nothing wrong."""
    stretches, _ = plan(times, keys, count, budget)
    found: list[int] = []
    for stretch in stretches:
        frames = [Shown(time) for time in sorted(times[stretch.first : stretch.end])]
        found += [frame.pts for frame in pick(frames, stretch.moments)]
    return found


def test_they_are_the_middles_of_equal_parts() -> None:
    assert taken([*range(100)], [0], 4) == [12, 37, 62, 87]


def test_a_key_frame_that_lies_near_is_taken_instead_and_only_it_is_decoded() -> None:
    stretches, hurry = plan([*range(100)], [0, 10, 40, 55, 90], 4, PLENTY)
    assert taken([*range(100)], [0, 10, 40, 55, 90], 4) == [10, 40, 62, 90]
    assert [stretch.end - stretch.first for stretch in stretches] == [1, 1, 8, 1]
    assert not hurry


def test_where_it_would_be_too_much_work_key_frames_further_away_do_and_a_hurry_is_told() -> None:
    times, keys = [*range(100)], [0, 50]
    assert taken(times, keys, 2, PLENTY) == [25, 75]
    assert taken(times, [0, 30, 62], 2, 10) == [30, 62]
    assert plan(times, keys, 4, 10)[1]


def test_no_more_frames_than_there_are_and_each_once() -> None:
    assert taken([0, 1, 2], [0], 8) == [0, 1, 2]
    assert taken([7], [0], 8) == [7]
    assert taken([0, 1, 2, 1000, 1001, 2000], [0], 4) == [2, 1001, 2000]


def test_frames_that_are_decoded_in_another_order_are_taken_as_they_show() -> None:
    times = [0, 4, 2, 1, 3, 8, 6, 5, 7]
    assert taken(times, [0], 3) == [1, 4, 7]


def test_the_last_frame_counts_to_the_length() -> None:
    assert length([0, 10, 20, 30]) == 40
    assert length([5]) == 0


@given(
    st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=60),
    st.sets(st.integers(0, 59)),
    st.integers(1, 20),
    st.integers(0, 100),
)
def test_whatever_the_times_are_something_is_taken_in_order_and_not_too_much(
    times: list[int], keys: set[int], count: int, budget: int
) -> None:
    usable = sorted(key for key in keys if key < len(times)) or [0]
    stretches, _ = plan(times, usable, count, budget)
    found = taken(times, usable, count, budget)
    assert 1 <= len(found) <= count
    assert sum(len(stretch.moments) for stretch in stretches) <= count
    assert all(0 <= stretch.first < stretch.end <= len(times) for stretch in stretches)
