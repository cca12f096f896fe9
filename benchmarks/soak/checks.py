"""Checks of a soak; each returns its failures as text."""

from collections.abc import Sequence

from benchmarks.soak.sampling import Sample
from benchmarks.soak.slope import Slope, fit_slope

WARM_UP = 0.5  # of the samples, which are not judged: caches, rings and the allocator still fill
MIN_JUDGED_SECONDS = 300  # of load: after a shorter warm-up memory still grows
# MB per minute, for the lower end of the interval: above noise, and above an allocator that still settles. With 150
# turns a second this is a leak of 30 bytes in each turn; no object is smaller.
MAX_GROWTH = 0.25


def check_memory(samples: Sequence[Sample], seconds: float) -> list[str]:
    """Print the slope of the server's private memory; fail if it grows."""
    slope = steady_slope(samples)
    is_judged = seconds >= MIN_JUDGED_SECONDS
    is_flat = slope.high <= MAX_GROWTH
    verdict = (
        f"at most {MAX_GROWTH}: flat" if is_flat else f"too unsure to be called flat, which is at most {MAX_GROWTH}"
    )
    print(f"memory, second half: {slope}; {verdict if is_judged else f'judged from {MIN_JUDGED_SECONDS} s of load on'}")
    return [f"memory grows: {slope}, and {MAX_GROWTH} is the bound"] if is_judged and slope.low > MAX_GROWTH else []


def steady_slope(samples: Sequence[Sample]) -> Slope:
    steady_samples = samples[int(len(samples) * WARM_UP) :]
    return fit_slope([sample.at / 60 for sample in steady_samples], [sample.uss for sample in steady_samples])


def check_counts(before: Sample, after: Sample) -> list[str]:
    grown = [name for name, count in after.counts.items() if count > before.counts[name]]
    failures = [f"{name}: {after.counts[name]} at the end, {before.counts[name]} before" for name in grown]
    if "tasks" in grown:
        new_tasks = {name: count for name, count in after.tasks.items() if count > before.tasks.get(name, 0)}
        failures.append(f"tasks that are left, by name: {new_tasks}")
    return failures


def check_log(log: str) -> list[str]:
    error_lines = [line for line in log.splitlines() if '"level":"error"' in line or line.startswith("Traceback")]
    return [f"Forgeline's log has {len(error_lines)} errors, the first: {error_lines[0][:2000]}"] if error_lines else []
