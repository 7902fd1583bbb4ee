"""Results in the forms the paper gives its own: Tables 1, 2, 3 and 6, Figure 3."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

from cross_lora_core.experiments.cells import Cell, cells_of
from cross_lora_core.experiments.results import CellResult, Results
from cross_lora_core.experiments.scores import Column, columns_of, pair_name, score_text
from cross_lora_core.experiments.spec import Experiment, Pair
from cross_lora_core.experiments.table import NOT_RUN, NOTHING, Table, gap_text, loss_text, text_of
from cross_lora_core.migration import Method

__all__ = [
    "energy_by_rank",
    "interpolation_or_projection",
    "models_and_tasks",
    "ranks_and_sizes",
    "time_and_memory",
]

_ByTask = list[list[Cell]]


def models_and_tasks(experiment: Experiment, results: Results) -> Table:
    """Table 2: every base alone, with adapters trained on it, and with those that were moved to it."""
    rows = [
        (model, *labels, *(score_text(results, cells) for cells in by_task))
        for model in experiment.base_names
        for labels, by_task in _adapters_on(experiment, model)
    ]
    return Table(
        "models",
        "Bases, trained and transferred adapters (Table 2)",
        "Accuracy where the task has choices, share of exact matches where text is generated, else loss in "
        "nats per character; ± is the standard error over rows, square brackets hold the least and greatest "
        "of several seeds, round ones the change against the base alone in percent of it.",
        ("model", "adapter", "recipe", *(one.name for one in experiment.tasks)),
        tuple(rows) if experiment.tasks else (),
    )


def _adapters_on(experiment: Experiment, model: str) -> Iterator[tuple[tuple[str, str], _ByTask]]:
    """Labels of a row, and the cells of each task in it, one per seed; zeros are the base once more."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for one in cells_of(experiment):
        if one.model == model and one.task and one.kind != "zero":
            groups.setdefault((_label(one), one.recipe or ""), []).append(one)
    for labels, cells in groups.items():
        yield labels, _by_task(experiment, cells)


def _label(cell: Cell) -> str:
    if cell.kind in ("base", "trained"):
        return {"base": "none", "trained": "trained here"}[cell.kind]
    control = "" if cell.kind == "transferred" else f"{cell.kind} beside "
    return f"{control}{_column(cell)} from {cell.source}"


def _column(cell: Cell) -> Column:
    assert cell.method is not None
    return Column(cell.method, cell.rank)


def _by_task(experiment: Experiment, cells: Sequence[Cell]) -> _ByTask:
    return [[one for one in cells if one.task == task.name] for task in experiment.tasks]


def interpolation_or_projection(experiment: Experiment, results: Results) -> Table:
    """Table 3: the transport beside the baseline that resizes matrices."""
    wanted = {Method.INTERPOLATE, Method.CROSS_LORA}
    columns = [one for one in columns_of(experiment) if one.method in wanted]
    rows = [
        (pair_name(pair), recipe, label, *(score_text(results, cells) for cells in by_task))
        for pair, recipe in product(experiment.pairs, experiment.recipes)
        for label, by_task in _compared(experiment, pair, recipe, columns)
    ]
    return Table(
        "interpolation",
        "Interpolation or projection (Table 3)",
        "As in the table of bases and adapters, for the paper's method and its baseline.",
        ("source → target", "recipe", "adapter", *(one.name for one in experiment.tasks)),
        tuple(rows) if {one.method for one in columns} == wanted else (),
    )


def _compared(
    experiment: Experiment, pair: Pair, recipe: str, columns: Sequence[Column]
) -> Iterator[tuple[str, _ByTask]]:
    here = [one for one in cells_of(experiment) if one.model == pair.target]
    mine = [one for one in here if one.recipe == recipe]
    yield "none", _by_task(experiment, [one for one in here if one.kind == "base"])
    yield "trained here", _by_task(experiment, [one for one in mine if one.kind == "trained"])
    moved = [one for one in mine if one.kind == "transferred" and one.source == pair.source]
    for column in columns:
        yield str(column), _by_task(experiment, [one for one in moved if _column(one) == column])


def ranks_and_sizes(experiment: Experiment, results: Results) -> Table:
    """Figure 3: score and size of the file by the rank of the bases and of the adapters."""
    cells = [one for one in cells_of(experiment) if one.kind == "transferred" and one.rank is not None]
    several = len(experiment.ranks) > 1
    return Table(
        "ranks",
        "Rank and checkpoint size (Figure 3)",
        "Rank of the bases: singular vectors kept per weight. Sizes are of the adapters' weights as written.",
        ("source → target", "task", "recipe", "seed", "method", "rank of bases", "loss",
         "accuracy or exact matches", "gap recovered", "rank written", "MB", "MB trained here"),
        tuple(_rank_row(results, one) for one in cells if several),
    )  # fmt: skip


def _rank_row(results: Results, cell: Cell) -> tuple[str, ...]:
    found, trained = results.of(cell), results.of(cell.beside("trained"))
    return (
        f"{cell.source} → {cell.model}",
        f"{cell.task}",
        f"{cell.recipe}",
        f"{cell.seed}",
        f"{cell.method}",
        f"{cell.rank}",
        loss_text(found),
        f"{found.score.mean:.4f}" if found and found.score else NOTHING,
        text_of(found, gap_text),
        f"{found.adapter.rank}" if found and found.adapter else NOTHING,
        _megabytes(found),
        _megabytes(trained),
    )


def _megabytes(found: CellResult | None) -> str:
    return f"{found.adapter.size / 1e6:.2f}" if found and found.adapter else NOTHING


def time_and_memory(experiment: Experiment, results: Results) -> Table:
    """Table 6: what training and every method cost."""
    groups: dict[tuple[str, str], list[CellResult]] = {}
    for one in cells_of(experiment):
        found = results.of(one)
        if found and found.cost:
            groups.setdefault(_paid_for(one), []).append(found)
    return Table(
        "cost",
        "Time and memory (Table 6)",
        "From the request to the published adapter; evaluation is not counted. The first adapter of a pair "
        "also pays for what all share (factors, alignments, maps), unless another method had stored it. "
        "Memory is the peak of the whole process, whatever else it held.",
        ("bases", "what", "adapters", "slowest, s", "median, s", "peak memory, MB", "peak GPU memory, MB"),
        tuple((*labels, *_costs(found)) for labels, found in groups.items()),
    )


def _paid_for(cell: Cell) -> tuple[str, str]:
    if cell.kind == "trained":
        return cell.model, f"training, {cell.recipe}"
    return f"{cell.source} → {cell.model}", str(_column(cell))


def _costs(found: Sequence[CellResult]) -> tuple[str, ...]:
    costs = [one.cost for one in found if one.cost]
    seconds = sorted(one.seconds for one in costs)
    return (
        f"{len(costs)}",
        f"{seconds[-1]:.1f}",
        f"{seconds[len(seconds) // 2]:.1f}",
        _peak([one.peak_bytes for one in costs]),
        _peak([one.device_bytes for one in costs]),
    )


def _peak(values: Sequence[int | None]) -> str:
    known = [one for one in values if one is not None]
    return f"{max(known) / 1e6:.0f}" if known else NOTHING


def energy_by_rank(experiment: Experiment, results: Results) -> Table:
    """Table 1 and Appendix C: the share of a base's weights that a rank keeps, measured and not assumed."""
    cells = [one for one in cells_of(experiment) if one.kind == "energy"]
    return Table(
        "energy",
        "Energy kept by rank (Table 1, Appendix C)",
        "Share of the squared Frobenius norm of the base's weights. The paper takes it to be at least 99 % "
        "at rank 320.",
        ("base", "rank", "mean", "least", "of", "by role"),
        tuple(_energy_row(one, results.of(one)) for one in cells),
    )


def _energy_row(cell: Cell, found: CellResult | None) -> tuple[str, ...]:
    name = (cell.model, f"{cell.rank}")
    energy = found.energy if found else None
    if energy is None:
        return (*name, *[NOTHING if found else NOT_RUN] * 4)
    roles = ", ".join(f"{role} {share:.1%}" for role, share in energy.roles.items())
    return (*name, f"{energy.mean:.2%}", f"{energy.least:.2%}", energy.least_module, roles)
