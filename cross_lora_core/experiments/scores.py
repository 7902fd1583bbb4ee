"""What several cells come to: columns of methods, mean scores over seeds, shares of a gap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cross_lora_core.evaluation import Figures
from cross_lora_core.experiments.cells import Cell, Kind, cells_of, ranks_of
from cross_lora_core.experiments.results import Results
from cross_lora_core.experiments.spec import Experiment, Pair
from cross_lora_core.experiments.table import NOT_RUN, NOTHING
from cross_lora_core.migration import Method

__all__ = ["Column", "columns_of", "gaps", "mean", "pair_name", "score_text"]


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


def gaps(
    experiment: Experiment,
    results: Results,
    pair: Pair,
    recipe: str,
    column: Column,
    kind: Kind = "transferred",
) -> list[float]:
    """Shares of the gap recovered, of every task and seed that has one.

    Args:
        experiment: whose cells are looked at.
        results: of it.
        pair: of bases.
        recipe: that adapters were trained by.
        column: method and rank.
        kind: `transferred`, or the control beside it.
    """
    wanted = (kind, pair.source, pair.target, recipe, *column)
    cells = [one for one in cells_of(experiment) if _coordinates(one) == wanted]
    figures = [found.figures for one in cells if (found := results.of(one)) and found.figures]
    return [one.gap.share.mean for one in figures if one.gap and one.gap.share]


def _coordinates(cell: Cell) -> tuple[object, ...]:
    return (cell.kind, cell.source, cell.model, cell.recipe, cell.method, cell.rank)


def score_text(results: Results, cells: Sequence[Cell]) -> str:
    """Mean accuracy over seeds, or loss where the task has no choices, and its change against the base alone.

    Args:
        results: of the experiment.
        cells: the same but for their seeds.
    """
    found = [one for one in map(results.of, cells) if one is not None]
    figures = [one.figures for one in found if one.figures]
    if not figures:
        return NOTHING if found else NOT_RUN
    text, value = _score(figures)
    alone = results.of(cells[0].beside("base"))
    if cells[0].kind == "base" or alone is None or alone.figures is None:
        return text
    _, before = _score([alone.figures])
    return f"{text} ({(value - before) / before:+.2%})" if before else text


def _score(figures: Sequence[Figures]) -> tuple[str, float]:
    """With the standard error over rows of one seed, or the least and greatest of several."""
    means = [one.accuracy or one.loss for one in figures]
    value = mean([one.mean for one in means])
    if len(means) > 1:
        least, most = min(one.mean for one in means), max(one.mean for one in means)
        return f"{value:.4f} [{least:.4f} … {most:.4f}]", value
    error = means[0].standard_error
    return f"{value:.4f}" + ("" if error is None else f" ± {error:.4f}"), value
