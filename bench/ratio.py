"""Medians and what can be said about them without assuming anything about how the noise is distributed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from math import comb
from typing import NamedTuple

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """A median, and the bounds between which the true one lies with CONFIDENCE or more, if there are enough values."""

    median: float
    low: float
    high: float


def interval(values: Sequence[float]) -> Interval:
    """The sample's median and a confidence interval from order statistics: the k-th smallest to the k-th largest value.

    Each value is below the true median with probability 1/2, so how many are is binomial; k is the largest number for
    which fewer than k of n on one side has at most half of what CONFIDENCE leaves. 15 values: the 4th to the 12th.
    With fewer than 6 the interval is the whole sample, and the confidence is lower.
    """
    ordered = sorted(values)
    return Interval(statistics.median(ordered), ordered[rank(len(ordered)) - 1], ordered[-rank(len(ordered))])


def rank(count: int) -> int:
    """k of ``interval``, at least 1."""
    tail, k = 0.0, 0
    while k < count // 2:
        tail += comb(count, k) / 2**count  # the chance that at most k of all are on one side
        if tail > (1 - CONFIDENCE) / 2:
            break
        k += 1
    return max(1, k)


def ratios(values: Sequence[float], to: Sequence[float]) -> Interval:
    """The median of the pairs' ratios; a pair is what was measured in one round, so slow rounds do no harm."""
    return interval([value / base for value, base in zip(values, to, strict=True)])
