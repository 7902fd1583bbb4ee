"""What several cells come to: columns of methods, mean scores over seeds, shares of a gap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from cross_lora_core.evaluation import GapRecovered, Mean
from cross_lora_core.experiments.cells import Cell, Kind, cells_of, ranks_of
from cross_lora_core.experiments.results import CellResult, Results
from cross_lora_core.experiments.spec import Experiment, Pair
from cross_lora_core.experiments.table import NOT_RUN, NOTHING
from cross_lora_core.migration import Method

__all__ = ["Column", "Measure", "columns_of", "gaps", "mean", "pair_name", "score_text"]


class Column(NamedTuple):
    """A method, with the rank of the bases where it keeps some of their singular vectors."""

    method: Method
    rank: int | None

    def __str__(self) -> str:
        return f"{self.method}" if self.rank is None else f"{self.method} @{self.rank}"


def columns_of(experiment: Experiment) -> list[Column]:
    """Every method at every rank it is run with."""
    return [Column(method, rank) for method in experiment.methods for rank in ranks_of(experiment, method)]


def pair_name(pair: Pair) -> str:
    """As tables and plots write it."""
    return f"{pair.source} → {pair.target}"


def mean(values: Sequence[float]) -> float:
    """Of at least one value."""
    return sum(values) / len(values)


Measure = Literal["loss", "score"]
"""By what a gap is measured: loss, or accuracy and exact matches, where a task has them."""


def gaps(
    experiment: Experiment,
    results: Results,
    pair: Pair,
    recipe: str,
    column: Column,
    kind: Kind = "transferred",
    measure: Measure = "loss",
) -> list[float]:
    """Shares of the gap recovered, of every task and seed that has one.

    Args:
        experiment: whose cells are looked at.
        results: of it.
        pair: of bases.
        recipe: that adapters were trained by.
        column: method and rank.
        kind: `transferred`, or the control beside it.
        measure: of the gap.
    """
    wanted = (kind, pair.source, pair.target, recipe, *column)
    cells = [one for one in cells_of(experiment) if _coordinates(one) == wanted]
    found = [_gap(one, measure) for one in map(results.of, cells) if one]
    return [one.share.mean for one in found if one and one.share]


def _gap(found: CellResult, measure: Measure) -> GapRecovered | None:
    judged = found.figures if measure == "loss" else found.score
    return judged.gap if judged else None


def _coordinates(cell: Cell) -> tuple[object, ...]:
    return (cell.kind, cell.source, cell.model, cell.recipe, cell.method, cell.rank)


def score_text(results: Results, cells: Sequence[Cell]) -> str:
    """Mean over seeds of accuracy, exact matches or loss, and its change against the base alone.

    Args:
        results: of the experiment.
        cells: the same but for their seeds.
    """
    found = [one for one in map(results.of, cells) if one is not None]
    means = [one for one in map(_judged, found) if one]
    if not means:
        return NOTHING if found else NOT_RUN
    value, text = mean([one.mean for one in means]), _mean_text(means)
    alone = results.of(cells[0].beside("base"))
    before = _judged(alone) if alone and cells[0].kind != "base" else None
    return f"{text} ({(value - before.mean) / before.mean:+.2%})" if before and before.mean else text


def _judged(found: CellResult) -> Mean | None:
    return found.score or (found.figures.loss if found.figures else None)


def _mean_text(means: Sequence[Mean]) -> str:
    """With the standard error over rows of one seed, or the least and greatest of several."""
    values = [one.mean for one in means]
    if len(values) > 1:
        return f"{mean(values):.4f} [{min(values):.4f} … {max(values):.4f}]"
    error = means[0].standard_error
    return f"{values[0]:.4f}" + ("" if error is None else f" ± {error:.4f}")
