"""Figures, the lines of the table: how each is computed from an outcome, and its aim."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from benchmarks.outcome import Outcome


class Aim(msgspec.Struct, frozen=True, tag=True):
    """The bound of a figure. `compare` relates it to the floor's figure of the same round."""

    limit: float

    def compare(self, value: float, floor: float) -> float | None:
        return value / floor if floor > 0 else None

    def is_met(self, value: float, compared: float | None) -> bool:
        raise NotImplementedError

    def describe(self, unit: str) -> str:
        raise NotImplementedError


class AtLeast(Aim, frozen=True, tag=True):
    """At least `limit` times the floor's."""

    def is_met(self, value: float, compared: float | None) -> bool:
        return compared is not None and compared >= self.limit

    def describe(self, unit: str) -> str:
        return f">= {self.limit:g}"


class AtMost(Aim, frozen=True, tag=True):
    """At most `limit` times the floor's."""

    def is_met(self, value: float, compared: float | None) -> bool:
        return compared is not None and compared <= self.limit

    def describe(self, unit: str) -> str:
        return f"<= {self.limit:g}"


class Within(Aim, frozen=True, tag=True):
    """Equal to the floor's, with a relative tolerance of `limit`."""

    def is_met(self, value: float, compared: float | None) -> bool:
        return compared is not None and abs(compared - 1) <= self.limit

    def describe(self, unit: str) -> str:
        return f"1 +- {self.limit:g}"


class Beyond(Aim, frozen=True, tag=True):
    """At most `limit` more than the floor's, in the figure's unit."""

    def compare(self, value: float, floor: float) -> float:
        return value - floor

    def is_met(self, value: float, compared: float | None) -> bool:
        return compared is not None and compared <= self.limit

    def describe(self, unit: str) -> str:
        return f"<= {self.limit:g} {unit} more"


class Below(Aim, frozen=True, tag=True):
    """Below `limit` in the figure's unit, independent of the floor."""

    def is_met(self, value: float, compared: float | None) -> bool:
        return value < self.limit

    def describe(self, unit: str) -> str:
        return f"< {self.limit:g} {unit}"


AnyAim = AtLeast | AtMost | Within | Beyond | Below


@dataclass(frozen=True)
class Figure:
    """One line of the table: `value` computes it from an outcome."""

    label: str
    unit: str
    value: Callable[[Outcome], float]
    aim: AnyAim | None = None


def requests(aim: AnyAim | None = None) -> Figure:
    return Figure("requests", "/s", lambda outcome: outcome.responses / outcome.seconds, aim)


def chunks(aim: AnyAim | None = None, label: str = "chunks") -> Figure:
    return Figure(label, "/s", lambda outcome: outcome.chunks / outcome.seconds, aim)


def cpu_per_1000(aim: AnyAim | None = None) -> Figure:
    return Figure("CPU s per 1000 requests", "s", lambda outcome: outcome.cpu_seconds / outcome.responses * 1000, aim)


def cpu_per_100k(aim: AnyAim | None = None, label: str = "chunks") -> Figure:
    return Figure(f"CPU s per 100k {label}", "s", lambda outcome: outcome.cpu_seconds / outcome.chunks * 100_000, aim)


def latency(p50: AnyAim | None = None, p99: AnyAim | None = None, label: str = "latency") -> tuple[Figure, Figure]:
    return (
        Figure(f"{label} p50", "ms", lambda outcome: outcome.latency_p50, p50),
        Figure(f"{label} p99", "ms", lambda outcome: outcome.latency_p99, p99),
    )


def first_chunk(p50: AnyAim | None = None) -> tuple[Figure, Figure]:
    return (
        Figure("first chunk p50", "ms", lambda outcome: outcome.first_chunk_p50, p50),
        Figure("first chunk p99", "ms", lambda outcome: outcome.first_chunk_p99),
    )


def added_latency(label: str, aim: AnyAim) -> Figure:
    return Figure(label, "ms", lambda outcome: outcome.added_ms, aim)


def peak_memory(aim: AnyAim) -> Figure:
    return Figure("peak memory", "MB", lambda outcome: outcome.peak_mb, aim)


def longest_gap() -> Figure:
    return Figure("longest silence in a stream", "ms", lambda outcome: outcome.longest_gap_ms)
