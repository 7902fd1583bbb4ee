"""Multiple choice: every choice is scored as a completion of its own; the likeliest is the answer given."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from cross_lora_core.evaluation.rows import EvaluationRow

__all__ = ["each_choice", "hits", "normalised_hits", "right_losses"]


def each_choice(rows: Sequence[EvaluationRow]) -> tuple[EvaluationRow, ...]:
    """Every choice as a row of its own, in order; a row without choices stays what it is."""
    return tuple(EvaluationRow(row.prompt, text) for row in rows for text in _completions(row))


def right_losses(rows: Sequence[EvaluationRow], losses: Sequence[float]) -> list[float]:
    """Loss of each row's completion, from those of `each_choice(rows)`, in nats per character."""
    return [own[_completions(row).index(row.completion)] for row, own in _by_row(rows, losses)]


def hits(rows: Sequence[EvaluationRow], losses: Sequence[float]) -> list[float]:
    """1 where the likeliest choice is the right one, else 0 (undefined losses too), of each row with choices.

    Args:
        rows: as they were read.
        losses: of `each_choice(rows)`, in nats per character.
    """
    return _hits(rows, losses, lambda text, loss: loss * len(text))


def normalised_hits(rows: Sequence[EvaluationRow], losses: Sequence[float]) -> list[float]:
    """The same with each choice's log likelihood divided by its length, its leading spaces not counted."""
    return _hits(rows, losses, lambda text, loss: loss * len(text) / (len(text.lstrip()) or 1))


def _hits(
    rows: Sequence[EvaluationRow], losses: Sequence[float], cost: Callable[[str, float], float]
) -> list[float]:
    return [
        float(all(map(math.isfinite, own)) and _cheapest(row.choices, own, cost) == row.completion)
        for row, own in _by_row(rows, losses)
        if row.choices
    ]


def _cheapest(texts: Sequence[str], losses: Sequence[float], cost: Callable[[str, float], float]) -> str:
    text, _ = min(zip(texts, losses, strict=True), key=lambda one: cost(*one))
    return text


def _completions(row: EvaluationRow) -> tuple[str, ...]:
    return row.choices or (row.completion,)


def _by_row(
    rows: Sequence[EvaluationRow], losses: Sequence[float]
) -> Iterator[tuple[EvaluationRow, list[float]]]:
    left = iter(losses)
    for row in rows:
        yield row, list(islice(left, len(_completions(row))))
