"""Every table of an experiment: what each method recovers first, then the forms of the paper."""

from __future__ import annotations

from itertools import product

from cross_lora_core.evaluation import Figures, paired_bootstrap
from cross_lora_core.experiments.cells import Cell, cells_of
from cross_lora_core.experiments.paper_tables import (
    energy_by_rank,
    interpolation_or_projection,
    models_and_tasks,
    ranks_and_sizes,
    time_and_memory,
)
from cross_lora_core.experiments.results import Results
from cross_lora_core.experiments.scores import Column, Measure, columns_of, gaps, mean, pair_name
from cross_lora_core.experiments.spec import Experiment, Pair
from cross_lora_core.experiments.table import (
    NOT_RUN,
    NOTHING,
    Table,
    gap_text,
    interval_text,
    loss_text,
    text_of,
)

__all__ = ["every_transfer", "means_by_method", "methods_side_by_side", "tables_of"]


def tables_of(experiment: Experiment, results: Results) -> tuple[Table, ...]:
    """Every table that the experiment has cells for."""
    made = (
        means_by_method(experiment, results),
        methods_side_by_side(experiment, results),
        methods_side_by_side(experiment, results, "score"),
        every_transfer(experiment, results),
        models_and_tasks(experiment, results),
        interpolation_or_projection(experiment, results),
        ranks_and_sizes(experiment, results),
        time_and_memory(experiment, results),
        energy_by_rank(experiment, results),
    )
    return tuple(one for one in made if one.rows)


_GAP_NOTE = (
    "(base − transferred) / (base − trained on the target), mean over tasks and seeds; in brackets that of "
    "the random control of the same norm. 100 % is as good as training there. Where what training gains "
    "cannot be told from chance, there is no gap and the task is left out."
)
_GAP_TITLES: dict[Measure, str] = {
    "loss": "Gap recovered by method, in loss",
    "score": "Gap recovered by method, in accuracy or exact matches",
}


def methods_side_by_side(experiment: Experiment, results: Results, measure: Measure = "loss") -> Table:
    """Share of the gap recovered by every method and its random control, pair by pair."""
    columns = columns_of(experiment)
    rows = [
        (
            pair_name(pair),
            "yes" if pair.related else "no",
            recipe,
            *(_mean_gap(experiment, results, pair, recipe, column, measure) for column in columns),
        )
        for pair, recipe in product(experiment.pairs, experiment.recipes)
    ]
    judged = measure == "loss" or any(one.score for one in results.cells.values())
    return Table(
        f"gap-{measure}",
        _GAP_TITLES[measure],
        _GAP_NOTE,
        ("source → target", "related", "recipe", *map(str, columns)),
        tuple(rows) if experiment.tasks and judged else (),
        labels=3,
    )


def _mean_gap(
    experiment: Experiment, results: Results, pair: Pair, recipe: str, column: Column, measure: Measure
) -> str:
    moved = gaps(experiment, results, pair, recipe, column, measure=measure)
    random = gaps(experiment, results, pair, recipe, column, "random", measure)
    if not moved:
        return NOTHING
    return f"{mean(moved):+.1%}" + (f" ({mean(random):+.1%})" if random else "")


def means_by_method(experiment: Experiment, results: Results) -> Table:
    """Mean share of the gap in loss over all transfers, between related bases and between others."""
    kinds = product((True, False), experiment.recipes, columns_of(experiment))
    rows = (_mean_row(experiment, results, *kind) for kind in kinds)
    return Table(
        "means",
        "Mean gap recovered, in loss",
        "Over pairs, tasks and seeds, each transfer counting alike; in brackets a "
        f"{100 * experiment.confidence:g} % bootstrap interval over transfers (not rows). "
        "Random: the same of the random controls.",
        ("bases", "recipe", "method", "transfers", "gap recovered", "random"),
        tuple(row for row in rows if row),
    )


def _mean_row(
    experiment: Experiment, results: Results, related: bool, recipe: str, column: Column
) -> tuple[str, ...] | None:
    pairs = [one for one in experiment.pairs if one.related is related]
    moved, random = (
        [gap for pair in pairs for gap in gaps(experiment, results, pair, recipe, column, kind)]
        for kind in ("transferred", "random")
    )
    if not moved:
        return None
    kept = "related" if related else "unrelated"
    shares = (_mean_interval(experiment, one) for one in (moved, random))
    return (kept, recipe, str(column), str(len(moved)), *shares)


def _mean_interval(experiment: Experiment, shares: list[float]) -> str:
    """With an interval from two transfers on; one alone says nothing of another."""
    if len(shares) == 1:
        return f"{shares[0]:+.1%}"
    interval = paired_bootstrap(shares, confidence=experiment.confidence) if shares else None
    return interval_text(interval, "+.1%")


def every_transfer(experiment: Experiment, results: Results) -> Table:
    """Every transferred adapter beside its controls, with intervals."""
    cells = [one for one in cells_of(experiment) if one.kind == "transferred"]
    return Table(
        "transfers",
        "Every transfer beside its controls",
        "Losses in nats per character. Improvement: fall of the loss against the base alone, with its "
        f"{100 * experiment.confidence:g} % interval over rows; zero and random: the same of the controls. "
        "Gap: share of what the adapter trained on the target gains, with its interval.",
        ("source → target", "task", "recipe", "seed", "method", "base", "trained", "transferred",
         "improvement", "zero", "random", "gap recovered", "gap of random", "verdict"),
        tuple(_transfer_row(results, one) for one in cells),
    )  # fmt: skip


def _transfer_row(results: Results, cell: Cell) -> tuple[str, ...]:
    assert cell.method is not None
    found = results.of(cell)
    zero, random = (results.of(cell.beside(kind)) for kind in ("zero", "random"))
    return (
        f"{cell.source} → {cell.model}",
        f"{cell.task}",
        f"{cell.recipe}",
        f"{cell.seed}",
        str(Column(cell.method, cell.rank)),
        *(loss_text(results.of(one)) for one in (cell.beside("base"), cell.beside("trained"), cell)),
        text_of(found, lambda one: interval_text(one.improvement, "+.4f")),
        text_of(zero, _improvement),
        text_of(random, _improvement),
        text_of(found, gap_text),
        text_of(random, _share),
        (found.verdict or found.status) if found else NOT_RUN,
    )


def _improvement(one: Figures) -> str:
    return NOTHING if one.improvement is None else f"{one.improvement.mean:+.4f}"


def _share(one: Figures) -> str:
    return f"{one.gap.share.mean:+.1%}" if one.gap and one.gap.share else NOTHING
