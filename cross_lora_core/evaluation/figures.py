"""What one model does on a file of rows, in figures, each with how far it can be trusted. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cross_lora_core.evaluation.choices import hits, normalised_hits, right_losses
from cross_lora_core.evaluation.rows import EvaluationRow
from cross_lora_core.evaluation.statistics import (
    GapRecovered,
    Interval,
    gap_recovered,
    paired_bootstrap,
    standard_error,
)

__all__ = ["Figures", "Mean", "figures"]


@dataclass(frozen=True)
class Mean:
    """A mean over `n` rows with its standard error, which one row does not have."""

    mean: float
    standard_error: float | None
    n: int


@dataclass(frozen=True)
class Figures:
    """Figures of a base, with an adapter or none.

    Attributes:
        loss: of the (right) completions, in nats per character.
        accuracy: share of rows with choices whose likeliest choice is right; None without such rows.
        normalised_accuracy: the same by likelihood per character.
        improvement: fall of the loss against the base alone; None for the base itself, and for one row.
        accuracy_improvement: rise of `accuracy` against the base alone.
        gap: share of what an adapter trained on the base brings; None if there is none to compare with.
    """

    loss: Mean
    accuracy: Mean | None
    normalised_accuracy: Mean | None
    improvement: Interval | None = None
    accuracy_improvement: Interval | None = None
    gap: GapRecovered | None = None


def figures(
    rows: Sequence[EvaluationRow],
    losses: Sequence[float],
    base: Sequence[float] | None = None,
    trained: Sequence[float] | None = None,
    *,
    confidence: float = 0.99,
    seed: int = 0,
) -> Figures:
    """Figures of a model from the losses it was measured with.

    Args:
        rows: as they were read.
        losses: of `each_choice(rows)`, in nats per character.
        base: the same of the base alone, to compare an adapter with.
        trained: the same of the base with an adapter trained on it.
        confidence: level of the intervals.
        seed: of the bootstrap.
    """
    right, right_base = right_losses(rows, losses), right_losses(rows, base) if base else None
    found, found_base = hits(rows, losses), hits(rows, base) if base else None
    gap = None
    if trained and right_base:
        gap = gap_recovered(right_base, right, right_losses(rows, trained), confidence=confidence, seed=seed)
    return Figures(
        loss=_mean(right),
        accuracy=_mean(found) if found else None,
        normalised_accuracy=_mean(normalised_hits(rows, losses)) if found else None,
        improvement=_more(right_base, right, confidence, seed),
        accuracy_improvement=_more(found, found_base, confidence, seed),
        gap=gap,
    )


def _mean(values: Sequence[float]) -> Mean:
    error = standard_error(values) if len(values) > 1 else None
    return Mean(sum(values) / len(values), error, len(values))


def _more(
    first: Sequence[float] | None, second: Sequence[float] | None, confidence: float, seed: int
) -> Interval | None:
    """By how much the first values are more than the second, pair by pair."""
    if first is None or second is None or len(first) < 2:
        return None
    differences = [one - other for one, other in zip(first, second, strict=True)]
    return paired_bootstrap(differences, confidence=confidence, seed=seed)
