"""The slope of a line through noisy samples, with its confidence interval."""

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


def fit_slope(minutes: Sequence[float], megabytes: Sequence[float]) -> Slope:
    """Fit a line by least squares.

    Samples of memory are autocorrelated, so the interval uses the effective sample size n (1 - r) / (1 + r), where r is
    the correlation of neighbouring residuals.
    """
    fit = statistics.linear_regression(minutes, megabytes)
    residuals = [y - fit.slope * x - fit.intercept for x, y in zip(minutes, megabytes, strict=True)]
    squares = sum(residual**2 for residual in residuals)
    r = sum(a * b for a, b in pairwise(residuals)) / squares if squares else 0.0
    degrees = max(len(residuals) * (1 - max(r, 0)) / (1 + max(r, 0)) - 2, 1.0)
    mean_minute = statistics.fmean(minutes)
    error = math.sqrt(squares / degrees / sum((x - mean_minute) ** 2 for x in minutes))
    half_width = student_975(degrees) * error
    return Slope(fit.slope, fit.slope - half_width, fit.slope + half_width)


def student_975(degrees: float) -> float:
    """The 97.5 % quantile of Student's t, expanded around the normal distribution; within 2 % from 3 degrees on."""
    z = 1.959964
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
