"""What one model does on a file of rows, in figures, each with how far it can be trusted. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

__all__ = ["Figures", "Mean", "Score", "figures", "score"]

_Judge = Callable[[Sequence[EvaluationRow], Sequence[float]], list[float]]
"""Rows as they were read, and losses of each choice, to one number a row."""


@dataclass(frozen=True)
class Mean:
    """A mean over `n` rows with its standard error, which one row does not have."""

    mean: float
    standard_error: float | None
    n: int


@dataclass(frozen=True)
class Score(Mean):
    """A share of rows that are right.

    Attributes:
        improvement: rise against the base alone; None for the base itself, and for one row.
        gap: share of what an adapter trained on the base gains; None if there is none to compare with.
    """

    improvement: Interval | None = None
    gap: GapRecovered | None = None


@dataclass(frozen=True)
class Figures:
    """Figures of a base, with an adapter or none.

    Attributes:
        loss: of the (right) completions, in nats per character.
        accuracy: of rows with choices, those whose likeliest choice is right; None without such rows.
        normalised_accuracy: the same by likelihood per character.
        improvement: fall of the loss against the base alone; None for the base itself, and for one row.
        gap: share of what an adapter trained on the base gains; None if there is none to compare with.
    """

    loss: Mean
    accuracy: Score | None
    normalised_accuracy: Score | None
    improvement: Interval | None = None
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

    def judged(judge: _Judge, found: Sequence[float] | None) -> list[float] | None:
        return None if found is None else judge(rows, found)

    def scored(judge: _Judge) -> Score | None:
        right = judge(rows, losses)
        others = judged(judge, base), judged(judge, trained)
        return score(right, *others, confidence=confidence, seed=seed) if right else None

    right = right_losses(rows, losses)
    others = judged(right_losses, base), judged(right_losses, trained)
    improvement, gap = _compared(right, *others, confidence=confidence, seed=seed)
    return Figures(_mean(right), scored(hits), scored(normalised_hits), improvement, gap)


def score(
    hits: Sequence[float],
    base: Sequence[float] | None = None,
    trained: Sequence[float] | None = None,
    *,
    confidence: float = 0.99,
    seed: int = 0,
) -> Score:
    """Share of rows that are right.

    Args:
        hits: 1 or 0 of each row.
        base: the same of the base alone, to compare an adapter with.
        trained: the same of the base with an adapter trained on it.
        confidence: level of the intervals.
        seed: of the bootstrap.

    Raises:
        ValueError: no rows.
    """
    found = _mean(hits)
    others = [None if one is None else _misses(one) for one in (base, trained)]
    improvement, gap = _compared(_misses(hits), *others, confidence=confidence, seed=seed)
    return Score(found.mean, found.standard_error, found.n, improvement, gap)


def _misses(hits: Sequence[float]) -> list[float]:
    return [1 - hit for hit in hits]


def _mean(values: Sequence[float]) -> Mean:
    if not values:
        raise ValueError("expected at least one row")
    error = standard_error(values) if len(values) > 1 else None
    return Mean(sum(values) / len(values), error, len(values))


def _compared(
    costs: Sequence[float],
    base: Sequence[float] | None,
    trained: Sequence[float] | None,
    *,
    confidence: float,
    seed: int,
) -> tuple[Interval | None, GapRecovered | None]:
    """By how much less the rows cost than with the base alone, and as a share of what `trained` saves."""
    if base is None or len(costs) < 2:
        return None, None
    saved = [alone - one for alone, one in zip(base, costs, strict=True)]
    improvement = paired_bootstrap(saved, confidence=confidence, seed=seed)
    if trained is None:
        return improvement, None
    return improvement, gap_recovered(base, costs, trained, confidence=confidence, seed=seed)
