"""The slope of a line through noisy samples, and how sure it is."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Slope:
    """MB per minute, and the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} MB/min (95 %: {self.low:+.3f} to {self.high:+.3f})"


def slope(minutes: Sequence[float], megabytes: Sequence[float]) -> Slope:
    """Least squares. Memory wanders: a sample says part of what the one before it has said, so the interval counts
    fewer samples than there are, by the correlation of neighbouring residuals (n (1 - r) / (1 + r))."""
    fit = statistics.linear_regression(minutes, megabytes)
    rests = [y - fit.slope * x - fit.intercept for x, y in zip(minutes, megabytes, strict=True)]
    squares = sum(rest**2 for rest in rests)
    r = sum(a * b for a, b in pairwise(rests)) / squares if squares else 0.0
    free = max(len(rests) * (1 - max(r, 0)) / (1 + max(r, 0)) - 2, 1.0)  # degrees of freedom
    middle = statistics.fmean(minutes)
    error = math.sqrt(squares / free / sum((x - middle) ** 2 for x in minutes))
    reach = student_975(free) * error
    return Slope(fit.slope, fit.slope - reach, fit.slope + reach)


def student_975(free: float) -> float:
    """Student's t by its expansion around the normal distribution; within 2 % from 3 degrees of freedom on."""
    z = 1.959964
    return z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
