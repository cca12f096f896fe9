"""The soak: its load on a real server, and its checks."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.soak import checks
from benchmarks.soak.sampling import Sample, processes_in
from benchmarks.soak.slope import fit_slope

ROOT = Path(__file__).parents[2]
MINUTES = [second / 60 for second in range(0, 300, 5)]
BASELINE = {"files": 14, "sockets": 5, "tasks": 3, "open_streams": 0}


def make_sample(at: float = 0, uss: float = 50, tasks: dict[str, int] | None = None, **counts: int) -> Sample:
    return Sample(at, uss + 15, uss, BASELINE | counts, tasks or {})


def memory_samples(mb_per_minute: float) -> list[Sample]:
    """Ten minutes of samples: memory that grows steadily, with autocorrelated noise."""
    rng, drift, samples = random.Random(1), 0.0, []  # noqa: S311 - no secret
    for second in range(0, 600, 5):
        drift = 0.7 * drift + rng.gauss(0, 0.3)
        samples.append(make_sample(second, 50 + mb_per_minute * second / 60 + drift))
    return samples


@pytest.mark.slow
def test_soak_short_run_ends_without_leaks() -> None:
    command = [sys.executable, "-m", "benchmarks.soak", "--seconds", "8"]
    result = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    assert "open_streams 0" in lines["after"]
    assert "MB/min" in lines["memory,"]


def test_fit_slope_of_exact_line_has_no_error() -> None:
    slope = fit_slope(MINUTES, [40 + 2.5 * minute for minute in MINUTES])
    assert (slope.value, slope.low, slope.high) == pytest.approx((2.5, 2.5, 2.5))


def test_fit_slope_interval_covers_true_slope() -> None:
    rng, hits = random.Random(2), 0  # noqa: S311 - no secret
    for _ in range(400):
        slope = fit_slope(MINUTES, [50 + minute + rng.gauss(0, 1) for minute in MINUTES])
        hits += slope.low < 1 < slope.high
    assert 0.92 < hits / 400 <= 0.99


def test_fit_slope_correlated_samples_widen_interval() -> None:
    rng = random.Random(3)  # noqa: S311 - no secret
    noise = [rng.gauss(0, 1) for _ in MINUTES]
    independent, correlated = (
        fit_slope(MINUTES, noise),
        fit_slope(MINUTES, sorted(noise[:30]) + sorted(noise[30:], reverse=True)),
    )
    assert correlated.high - correlated.low > 2 * (independent.high - independent.low)


def test_check_memory_noise_without_growth_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert checks.check_memory(memory_samples(0), 600) == []
    assert capsys.readouterr().out.strip().endswith("flat")


def test_check_memory_wide_interval_is_not_flat(capsys: pytest.CaptureFixture[str]) -> None:
    assert checks.check_memory(memory_samples(0)[:20], 600) == []
    assert "too unsure" in capsys.readouterr().out


def test_check_memory_growth_fails_with_slope() -> None:
    (failure,) = checks.check_memory(memory_samples(1.5), 600)
    assert failure.startswith("memory grows: +1.")


def test_check_memory_short_soak_is_not_judged(capsys: pytest.CaptureFixture[str]) -> None:
    assert checks.check_memory(memory_samples(1.5), 20) == []
    assert "judged from 300 s of load on" in capsys.readouterr().out


def test_check_counts_growth_names_both_counts() -> None:
    assert checks.check_counts(make_sample(), make_sample(files=13)) == []
    assert checks.check_counts(make_sample(), make_sample(files=16)) == ["files: 16 at the end, 14 before"]
    after = make_sample(tasks={"stream": 2, "watch": 1}, open_streams=2)
    assert checks.check_counts(make_sample(tasks={"watch": 1}), after) == ["open_streams: 2 at the end, 0 before"]


def test_check_counts_leaked_tasks_are_named() -> None:
    before, after = make_sample(tasks={"watch": 1}), Sample(0, 0, 0, BASELINE | {"tasks": 5}, {"watch": 1, "stream": 2})
    assert checks.check_counts(before, after)[1] == "tasks that are left, by name: {'stream': 2}"


def test_check_log_error_line_fails() -> None:
    log = '{"level":"info","event":"request"}\n{"event":"stage failed","level":"error"}\n'
    assert checks.check_log(log.splitlines()[0]) == []
    assert "stage failed" in checks.check_log(log)[0]


def test_processes_in_finds_process_by_working_directory(tmp_path: Path) -> None:
    assert processes_in(tmp_path) == []
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (slope,) = processes_in(tmp_path)
        process.communicate(b"\n")
    assert slope.startswith(f"{process.pid}: {sys.executable} -c")
