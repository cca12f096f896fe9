"""What one round of one side gave: counts, seconds, CPU, memory, times. It travels from client processes as JSON."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

STEPS = 200  # of a distribution: quantiles in half percents


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What does not apply stays 0. Times in `..._ms` are quantiles in half percents, least first; empty: none."""

    seconds: float
    answers: float = 0  # requests, or lines of a log
    chunks: int = 0  # tokens, or deliveries of a log's line
    cpu: float = 0  # seconds that the measured process and its children used
    peak_mb: float = 0
    stream_kb: float = 0  # memory that each open stream took
    added_ms: float = 0  # p50 beyond that of what lies behind
    whole_ms: list[float] = []  # request to last byte; a line's writing to its receipt
    first_ms: list[float] = []  # request to first chunk
    silence_ms: float = 0  # the longest between two chunks of one answer
    client_busy: float = 0  # share of the time that the client was busy
    upstream_busy: float = 0
    others_busy: float = 0  # CPU seconds per second that none of the three used: what disturbed

    @property
    def whole_p50(self) -> float:
        return percentile(self.whole_ms, 50)

    @property
    def whole_p99(self) -> float:
        return percentile(self.whole_ms, 99)

    @property
    def first_p50(self) -> float:
        return percentile(self.first_ms, 50)

    @property
    def first_p99(self) -> float:
        return percentile(self.first_ms, 99)


def quantiles(seconds: Sequence[float]) -> list[float]:
    """Of so many times, in milliseconds."""
    ordered = sorted(seconds)
    last = len(ordered) - 1
    return [ordered[last * step // STEPS] * 1000 for step in range(STEPS + 1)] if ordered else []


def percentile(found: Sequence[float], percent: int) -> float:
    return found[percent * STEPS // 100] if found else 0.0
