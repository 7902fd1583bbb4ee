"""Means over rows and how far to trust them: standard error, paired bootstrap, share of a gap recovered.

Intervals are *expanded* percentile intervals. The plain ones are too narrow with few rows, by the
factor `sqrt((n - 1) / n)` of the spread and for want of Student's t; the percentiles are taken further
out to make up for both (Hesterberg 2015, "What Teachers Should Know About the Bootstrap").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["GapRecovered", "Interval", "gap_recovered", "paired_bootstrap", "standard_error", "t_quantile"]

DRAWS = 10_000
"""Resamples of a bootstrap."""

CHUNK_VALUES = 1 << 20
"""Values resampled at a time: what bounds the memory, whatever the number of rows."""


@dataclass(frozen=True)
class Interval:
    """A mean, or a ratio of means, and its bootstrap interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class GapRecovered:
    """Share of what training on the target brings that a migrated adapter brings too.

    Attributes:
        share: 1 is as good as trained on the target, 0 no better than the base; None where it means nothing.
        reason: why there is no share; empty where there is one.
    """

    share: Interval | None
    reason: str = ""


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean of independent values.

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise ValueError("expected at least two values")
    return float(torch.tensor(values, dtype=torch.float64).std()) / math.sqrt(len(values))


def paired_bootstrap(
    differences: Sequence[float], *, confidence: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """Expanded percentile interval of the mean of paired differences, rows weighted equally.

    Args:
        differences: one per row. A single one has no spread to learn from: its interval is itself.
        confidence: level of the interval.
        draws: resamples.
        seed: of the resampling; the same input gives the same interval.

    Raises:
        ValueError: no differences.
    """
    if not differences:
        raise ValueError("expected at least one difference")
    values = torch.tensor([differences], dtype=torch.float64)
    (means,) = _resampled_means(values, draws, seed)
    return _interval(float(values.mean()), means, len(differences), confidence)


def gap_recovered(
    target: Sequence[float],
    migrated: Sequence[float],
    trained: Sequence[float],
    *,
    confidence: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> GapRecovered:
    """`(migrated - target) / (trained - target)`, a ratio of means over the same rows.

    Numerator and denominator are resampled together. The few draws in which training brings less than the
    lower end of its own interval count as that end, so that none divides by nothing.

    Args:
        target: losses by row of the target base alone.
        migrated: with the migrated adapter.
        trained: with an adapter trained on the target.
        confidence: level of the interval, and at which training must bring a gain.
        draws: resamples.
        seed: of the resampling.

    Raises:
        ValueError: the three are not of one length.
    """
    base = torch.tensor(target, dtype=torch.float64)
    gains = torch.stack([base - torch.tensor(one, dtype=torch.float64) for one in (migrated, trained)])
    if gains.shape[1] < 2:
        return GapRecovered(None, f"{gains.shape[1]} rows; two are the least")
    if not gains.isfinite().all():
        return GapRecovered(None, "losses are not finite")
    moved, whole = _resampled_means(gains, draws, seed)
    mean_moved, mean_whole = gains.mean(dim=1).tolist()
    gain = _interval(mean_whole, whole, gains.shape[1], confidence)
    if gain.low <= 0:
        return GapRecovered(
            None,
            f"what training on the target gains cannot be told from chance ({gain.mean:+.4f}, "
            f"{gain.low:+.4f} … {gain.high:+.4f})",
        )
    shares = moved / whole.clamp(min=gain.low)
    return GapRecovered(_interval(mean_moved / mean_whole, shares, gains.shape[1], confidence))


def _resampled_means(values: Tensor, draws: int, seed: int) -> Tensor:
    """Means [k, draws] of rows drawn with replacement from `values` [k, n], the same rows for all k."""
    count, rows = values.shape
    generator = torch.Generator().manual_seed(seed)
    means = torch.empty(count, draws, dtype=torch.float64)
    step = max(1, CHUNK_VALUES // rows)
    for start in range(0, draws, step):
        end = min(start + step, draws)
        chosen = torch.randint(rows, (end - start, rows), generator=generator)
        for one, into in zip(values, means, strict=True):
            into[start:end] = one[chosen].mean(dim=1)
    return means


def _interval(centre: float, resampled: Tensor, rows: int, confidence: float) -> Interval:
    tail = _expanded_tail(rows, confidence)
    low, high = torch.quantile(resampled, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Interval(centre, low, high)


def _expanded_tail(rows: int, confidence: float) -> float:
    """`Phi(-sqrt(n / (n - 1)) t)`, with t the quantile of Student's t at the nominal tail."""
    if rows < 2:
        return 0.0
    reach = math.sqrt(rows / (rows - 1)) * t_quantile((1 + confidence) / 2, rows - 1)
    return math.erfc(reach / math.sqrt(2)) / 2


@lru_cache(maxsize=256)
def t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t, by bisection of its distribution function.

    Args:
        probability: between 0 and 1, both excluded.
        degrees: of freedom, at least 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    if not 0 < probability < 1 or degrees < 1:
        raise ValueError(f"expected 0 < probability < 1 and degrees >= 1, got {probability}, {degrees}")
    if probability < 0.5:
        return -t_quantile(1 - probability, degrees)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if (1 + _central_mass(middle, degrees)) / 2 < probability:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _central_mass(angle: float, degrees: int) -> float:
    """P(|T| <= sqrt(degrees) tan(angle)), a finite sum (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(2 + odd, degrees + 1, 2):
        total += term
        term *= cosine * cosine * (power - 1) / power
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
