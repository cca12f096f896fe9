"""The soak: its load against a real server, and what its verdict finds."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.soak import verdict
from benchmarks.soak.slope import slope
from benchmarks.soak.watch import Sample, processes_in

ROOT = Path(__file__).parents[2]
MINUTES = [second / 60 for second in range(0, 300, 5)]
REST = {"files": 14, "sockets": 5, "tasks": 3, "open_streams": 0}


def sample(at: float = 0, uss: float = 50, tasks: dict[str, int] | None = None, **counts: int) -> Sample:
    return Sample(at, uss + 15, uss, REST | counts, tasks or {})


def remembered(per_minute: float) -> list[Sample]:
    """Ten minutes of a memory that grows by so much, under the noise of one that wanders."""
    rng, wander, samples = random.Random(1), 0.0, []  # noqa: S311 - no secret
    for second in range(0, 600, 5):
        wander = 0.7 * wander + rng.gauss(0, 0.3)
        samples.append(sample(second, 50 + per_minute * second / 60 + wander))
    return samples


@pytest.mark.slow
def test_a_short_soak_ends_by_itself_and_leaves_nothing_behind() -> None:
    command = [sys.executable, "-m", "benchmarks.soak", "--seconds", "8"]
    ended = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = {line.split()[0]: line for line in ended.stdout.splitlines() if line.strip()}
    assert "open_streams 0" in lines["after"]
    assert "MB/min" in lines["memory,"]


def test_the_slope_of_a_line_is_exact_and_sure() -> None:
    found = slope(MINUTES, [40 + 2.5 * minute for minute in MINUTES])
    assert (found.value, found.low, found.high) == pytest.approx((2.5, 2.5, 2.5))


def test_an_interval_holds_the_true_slope_about_as_often_as_it_says() -> None:
    rng, held = random.Random(2), 0  # noqa: S311 - no secret
    for _ in range(400):
        found = slope(MINUTES, [50 + minute + rng.gauss(0, 1) for minute in MINUTES])
        held += found.low < 1 < found.high
    assert 0.92 < held / 400 <= 0.99


def test_samples_that_follow_one_another_make_the_interval_wider() -> None:
    rng = random.Random(3)  # noqa: S311 - no secret
    noise = [rng.gauss(0, 1) for _ in MINUTES]
    mixed, ordered = slope(MINUTES, noise), slope(MINUTES, sorted(noise[:30]) + sorted(noise[30:], reverse=True))
    assert ordered.high - ordered.low > 2 * (mixed.high - mixed.low)


def test_memory_that_wanders_and_does_not_grow_is_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict.of_memory(remembered(0), 600) == []
    assert capsys.readouterr().out.strip().endswith("flat")


def test_a_slope_that_is_too_unsure_is_not_called_flat(capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict.of_memory(remembered(0)[:20], 600) == []
    assert "too unsure" in capsys.readouterr().out


def test_memory_that_grows_is_a_fault_with_its_slope() -> None:
    (fault,) = verdict.of_memory(remembered(1.5), 600)
    assert fault.startswith("memory grows: +1.")


def test_a_short_soak_prints_its_slope_and_does_not_judge_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict.of_memory(remembered(1.5), 20) == []
    assert "judged from 300 s of load on" in capsys.readouterr().out


def test_what_has_not_come_back_is_named_with_both_counts() -> None:
    assert verdict.of_counts(sample(), sample(files=13)) == []
    assert verdict.of_counts(sample(), sample(files=16)) == ["files: 16 at the end, 14 before"]
    left = sample(tasks={"stream": 2, "watch": 1}, open_streams=2)
    assert verdict.of_counts(sample(tasks={"watch": 1}), left) == ["open_streams: 2 at the end, 0 before"]


def test_tasks_that_are_left_are_told_by_their_names() -> None:
    before, after = sample(tasks={"watch": 1}), Sample(0, 0, 0, REST | {"tasks": 5}, {"watch": 1, "stream": 2})
    assert verdict.of_counts(before, after)[1] == "tasks that are left, by name: {'stream': 2}"


def test_an_error_in_the_log_is_a_fault() -> None:
    log = '{"level":"info","event":"request"}\n{"event":"stage failed","level":"error"}\n'
    assert verdict.of_log(log.splitlines()[0]) == []
    assert "stage failed" in verdict.of_log(log)[0]


def test_a_process_that_works_in_the_folder_is_found(tmp_path: Path) -> None:
    assert processes_in(tmp_path) == []
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (found,) = processes_in(tmp_path)
        process.communicate(b"\n")
    assert found.startswith(f"{process.pid}: {sys.executable} -c")
