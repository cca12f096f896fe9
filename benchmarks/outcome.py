"""The outcome of one round of one side: counts, durations, CPU time, memory. Client processes print it as JSON."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

QUANTILE_STEPS = 200  # of a distribution: quantiles in half percents


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that do not apply are 0. Lists `..._ms` are quantiles in half percents, ascending; empty: not measured."""

    seconds: float
    responses: float = 0  # or lines of a log
    chunks: int = 0  # or deliveries of log lines
    cpu_seconds: float = 0  # of the target process and its children
    peak_mb: float = 0
    stream_kb: float = 0  # memory for each open stream
    added_ms: float = 0  # p50 minus the p50 of the upstream
    latency_ms: list[float] = []  # request to last byte; or line written to line received
    first_chunk_ms: list[float] = []  # request to first chunk
    longest_gap_ms: float = 0  # between two chunks of one response
    client_busy: float = 0  # share of one core that the load client used
    upstream_busy: float = 0
    other_busy: float = 0  # share of one core that unrelated processes used

    @property
    def latency_p50(self) -> float:
        return percentile(self.latency_ms, 50)

    @property
    def latency_p99(self) -> float:
        return percentile(self.latency_ms, 99)

    @property
    def first_chunk_p50(self) -> float:
        return percentile(self.first_chunk_ms, 50)

    @property
    def first_chunk_p99(self) -> float:
        return percentile(self.first_chunk_ms, 99)


def quantiles(seconds: Sequence[float]) -> list[float]:
    """The quantiles of durations, in milliseconds."""
    ordered = sorted(seconds)
    last_index = len(ordered) - 1
    return (
        [ordered[last_index * step // QUANTILE_STEPS] * 1000 for step in range(QUANTILE_STEPS + 1)] if ordered else []
    )


def percentile(quantiles_ms: Sequence[float], percent: int) -> float:
    return quantiles_ms[percent * QUANTILE_STEPS // 100] if quantiles_ms else 0.0
