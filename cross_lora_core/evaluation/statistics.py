"""Paired bootstrap: is a mean difference over rows more than chance?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

__all__ = ["Interval", "paired_bootstrap"]


@dataclass(frozen=True)
class Interval:
    """A mean and its bootstrap interval."""

    mean: float
    low: float
    high: float


def paired_bootstrap(
    differences: Sequence[float], *, confidence: float = 0.95, draws: int = 10_000, seed: int = 0
) -> Interval:
    """Percentile interval of the mean of paired differences, rows weighted equally.

    Args:
        differences: one per row.
        confidence: level of the interval.
        draws: resamples.
        seed: of the resampling; the same input gives the same interval.

    Raises:
        ValueError: no differences.
    """
    if not differences:
        raise ValueError("expected at least one difference")
    values = torch.tensor(differences, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(values), (draws, len(values)), generator=generator)
    means = values[chosen].mean(dim=1)
    tail = (1 - confidence) / 2
    low, high = torch.quantile(means, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Interval(float(values.mean()), low, high)
