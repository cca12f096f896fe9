"""The lines of the table: how each is drawn from an outcome, and what is aimed at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from benchmarks.outcome import Outcome


class Aim(msgspec.Struct, frozen=True, tag=True):
    """What a figure is held against. `compared` is how it stands to the floor's, in the same round."""

    limit: float

    def compared(self, mine: float, floor: float) -> float | None:
        return mine / floor if floor > 0 else None

    def met(self, mine: float, compared: float | None) -> bool:
        raise NotImplementedError

    def said(self, unit: str) -> str:
        raise NotImplementedError


class AtLeast(Aim, frozen=True, tag=True):
    """So many times the floor's."""

    def met(self, mine: float, compared: float | None) -> bool:
        return compared is not None and compared >= self.limit

    def said(self, unit: str) -> str:
        return f">= {self.limit:g}"


class AtMost(Aim, frozen=True, tag=True):
    """So many times the floor's."""

    def met(self, mine: float, compared: float | None) -> bool:
        return compared is not None and compared <= self.limit

    def said(self, unit: str) -> str:
        return f"<= {self.limit:g}"


class Within(Aim, frozen=True, tag=True):
    """As much as the floor's, give or take such a share."""

    def met(self, mine: float, compared: float | None) -> bool:
        return compared is not None and abs(compared - 1) <= self.limit

    def said(self, unit: str) -> str:
        return f"1 +- {self.limit:g}"


class Beyond(Aim, frozen=True, tag=True):
    """At most so much more than the floor's, in the figure's own unit."""

    def compared(self, mine: float, floor: float) -> float:
        return mine - floor

    def met(self, mine: float, compared: float | None) -> bool:
        return compared is not None and compared <= self.limit

    def said(self, unit: str) -> str:
        return f"<= {self.limit:g} {unit} more"


class Below(Aim, frozen=True, tag=True):
    """In the figure's own unit, whatever the floor does."""

    def met(self, mine: float, compared: float | None) -> bool:
        return mine < self.limit

    def said(self, unit: str) -> str:
        return f"< {self.limit:g} {unit}"


AnyAim = AtLeast | AtMost | Within | Beyond | Below


@dataclass(frozen=True)
class Figure:
    label: str
    unit: str
    value: Callable[[Outcome], float]
    aim: AnyAim | None = None


def requests(aim: AnyAim | None = None) -> Figure:
    return Figure("requests", "/s", lambda outcome: outcome.answers / outcome.seconds, aim)


def chunks(aim: AnyAim | None = None, label: str = "chunks") -> Figure:
    return Figure(label, "/s", lambda outcome: outcome.chunks / outcome.seconds, aim)


def cpu_per_1000(aim: AnyAim | None = None) -> Figure:
    return Figure("CPU s per 1000 requests", "s", lambda outcome: outcome.cpu / outcome.answers * 1000, aim)


def cpu_per_100k(aim: AnyAim | None = None, what: str = "chunks") -> Figure:
    return Figure(f"CPU s per 100k {what}", "s", lambda outcome: outcome.cpu / outcome.chunks * 100_000, aim)


def latency(p50: AnyAim | None = None, p99: AnyAim | None = None, what: str = "latency") -> tuple[Figure, Figure]:
    return (
        Figure(f"{what} p50", "ms", lambda outcome: outcome.whole_p50, p50),
        Figure(f"{what} p99", "ms", lambda outcome: outcome.whole_p99, p99),
    )


def first_chunk(p50: AnyAim | None = None) -> tuple[Figure, Figure]:
    return (
        Figure("first chunk p50", "ms", lambda outcome: outcome.first_p50, p50),
        Figure("first chunk p99", "ms", lambda outcome: outcome.first_p99),
    )


def added(label: str, aim: AnyAim) -> Figure:
    return Figure(label, "ms", lambda outcome: outcome.added_ms, aim)


def peak(aim: AnyAim) -> Figure:
    return Figure("peak memory", "MB", lambda outcome: outcome.peak_mb, aim)


def silence() -> Figure:
    return Figure("longest silence in a stream", "ms", lambda outcome: outcome.silence_ms)
