"""Selection of frames: evenly spaced, near key frames preferred, and no frame twice."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from pipeline.workers.frame_selection import estimate_duration, plan_segments, select_frames

UNLIMITED = 10**9


@dataclass(frozen=True)
class TimedFrame:
    pts: int


def selected_times(times: list[int], keyframes: list[int], count: int, budget: int = UNLIMITED) -> list[int]:
    """The times of the selected frames, with a perfect decoder."""
    segments, _ = plan_segments(times, keyframes, count, budget)
    selected: list[int] = []
    for segment in segments:
        frames = [TimedFrame(time) for time in sorted(times[segment.first : segment.end])]
        selected += [frame.pts for frame in select_frames(frames, segment.timestamps)]
    return selected


def test_timestamps_are_the_middles_of_equal_parts() -> None:
    assert selected_times([*range(100)], [0], 4) == [12, 37, 62, 87]


def test_near_keyframe_replaces_a_timestamp_and_costs_one_packet() -> None:
    segments, over_budget = plan_segments([*range(100)], [0, 10, 40, 55, 90], 4, UNLIMITED)
    assert selected_times([*range(100)], [0, 10, 40, 55, 90], 4) == [10, 40, 62, 90]
    assert [segment.end - segment.first for segment in segments] == [1, 1, 8, 1]
    assert not over_budget


def test_over_budget_uses_keyframes_further_away_and_reports_it() -> None:
    times, keyframes = [*range(100)], [0, 50]
    assert selected_times(times, keyframes, 2, UNLIMITED) == [25, 75]
    assert selected_times(times, [0, 30, 62], 2, 10) == [30, 62]
    assert plan_segments(times, keyframes, 4, 10)[1]


def test_short_video_yields_each_frame_once() -> None:
    assert selected_times([0, 1, 2], [0], 8) == [0, 1, 2]
    assert selected_times([7], [0], 8) == [7]
    assert selected_times([0, 1, 2, 1000, 1001, 2000], [0], 4) == [2, 1001, 2000]


def test_reordered_frames_are_selected_in_presentation_order() -> None:
    times = [0, 4, 2, 1, 3, 8, 6, 5, 7]
    assert selected_times(times, [0], 3) == [1, 4, 7]


def test_duration_includes_the_last_frame() -> None:
    assert estimate_duration([0, 10, 20, 30]) == 40
    assert estimate_duration([5]) == 0


@given(
    st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=60),
    st.sets(st.integers(0, 59)),
    st.integers(1, 20),
    st.integers(0, 100),
)
def test_any_times_yield_valid_segments(times: list[int], keyframes: set[int], count: int, budget: int) -> None:
    valid_keyframes = sorted(key for key in keyframes if key < len(times)) or [0]
    segments, _ = plan_segments(times, valid_keyframes, count, budget)
    selected = selected_times(times, valid_keyframes, count, budget)
    assert 1 <= len(selected) <= count
    assert sum(len(segment.timestamps) for segment in segments) <= count
    assert all(0 <= segment.first < segment.end <= len(times) for segment in segments)
