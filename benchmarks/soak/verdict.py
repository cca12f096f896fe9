"""What was wrong with a soak, as sentences."""

from collections.abc import Sequence

from benchmarks.soak.slope import Slope, slope
from benchmarks.soak.watch import Sample

WARM_UP = 0.5  # of the time: caches, rings and the allocator fill; what memory does then is not judged
SHORTEST = 300  # seconds of load: after a shorter warm-up memory still settles, and is not judged at all
# MB per minute, by the interval's lower end: more than chance, and more than an allocator that still settles. At this
# load, some 150 turns a second, it is one forgotten object of 30 bytes in each: none is smaller.
LEAK = 0.25


def of_memory(samples: Sequence[Sample], seconds: float) -> list[str]:
    """Prints the slope of what is the server's own."""
    found = steady_slope(samples)
    judged = seconds >= SHORTEST
    said = f"at most {LEAK}: flat" if found.high <= LEAK else f"too unsure to be called flat, which is at most {LEAK}"
    print(f"memory, second half: {found}; {said if judged else f'judged from {SHORTEST} s of load on'}")
    return [f"memory grows: {found}, and {LEAK} is the bound"] if judged and found.low > LEAK else []


def steady_slope(samples: Sequence[Sample]) -> Slope:
    steady = samples[int(len(samples) * WARM_UP) :]
    return slope([sample.at / 60 for sample in steady], [sample.uss for sample in steady])


def of_counts(before: Sample, after: Sample) -> list[str]:
    more = [name for name, count in after.counts.items() if count > before.counts[name]]
    told = [f"{name}: {after.counts[name]} at the end, {before.counts[name]} before" for name in more]
    if "tasks" in more:
        new = {name: count for name, count in after.tasks.items() if count > before.tasks.get(name, 0)}
        told.append(f"tasks that are left, by name: {new}")
    return told


def of_log(log: str) -> list[str]:
    bad = [line for line in log.splitlines() if '"level":"error"' in line or line.startswith("Traceback")]
    return [f"Forgeline's log has {len(bad)} errors, the first: {bad[0][:2000]}"] if bad else []
