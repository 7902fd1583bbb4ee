"""Plan an experiment: which cells are left to do, which bases, rows and adapters they need."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from prefect import get_run_logger, task

from cross_lora_core.experiments import (
    Cell,
    Experiment,
    Kind,
    TaskRows,
    Training,
    cell_key,
    cells_of,
    chosen_cells,
    load_experiment,
    read_results,
)
from cross_lora_core.migration import BaseRef, base_ref, find_base, register_base
from cross_lora_core.models import open_base
from cross_lora_core.settings import load_settings
from tasks.runtime import TASK_OPTIONS, open_catalog, open_stored
from tasks.store_rows import store_rows

__all__ = ["ExperimentPlan", "plan_experiment", "results_path"]


@dataclass(frozen=True)
class ExperimentPlan:
    """What a run of an experiment has to do.

    Attributes:
        results: the file they go to, on the machine of the flow.
        bases: of the chosen cells, by the experiment's names.
        rows: of their tasks, by name.
        keys: content keys of the cells that are left, in the order they are run.
        found: chosen cells that were done before.
    """

    experiment: Experiment
    results: Path
    bases: Mapping[str, BaseRef]
    rows: Mapping[str, TaskRows]
    keys: Mapping[Cell, str]
    found: int

    def pending(self, *kinds: str) -> list[Cell]:
        """Cells of these kinds that are left."""
        return [one for one in self.keys if one.kind in kinds]

    @property
    def trainings(self) -> list[Training]:
        """Adapters that the cells that are left need, those of a base together."""
        needed = (cell.training_on(base) for cell in self.keys for base in (cell.source, cell.model))
        distinct = dict.fromkeys(one for one in needed if one)
        return sorted(distinct, key=lambda one: list(self.bases).index(one.base))


def results_path(file: str | Path) -> Path:
    """The results file of an experiment file: beside it."""
    return Path(file).expanduser().absolute().with_suffix(".results.json")


@task(name="plan", task_run_name="plan experiment {file}", **TASK_OPTIONS)
def plan_experiment(file: str, pattern: str, force: bool) -> ExperimentPlan:
    """Read the file, its bases and rows, and leave out what the results file holds already.

    Args:
        file: the experiment file.
        pattern: of the ids of the cells to run; those they are compared with are run too.
        force: run the chosen cells whether they are done or not.
    """
    experiment = load_experiment(file)
    chosen = set(chosen_cells(experiment, pattern))
    wanted = chosen | {one.beside(kind) for one in chosen if one.task for kind in _companions(one)}
    cells = [one for one in cells_of(experiment) if one in wanted]
    bases = {name: _registered(experiment, name) for name in _names(cells)}
    rows = {one.name: store_rows(experiment, one.name) for one in experiment.tasks if _has(cells, one.name)}
    keys = {one: cell_key(experiment, one, bases, rows, load_settings()) for one in cells}
    results = read_results(results_path(file), experiment.name)
    left = {
        one: key
        for one, key in keys.items()
        if (force and one in chosen) or not results.is_done(one, key)
    }  # fmt: skip
    get_run_logger().info("%s: %d cells left of %d", experiment.name, len(left), len(cells))
    return ExperimentPlan(experiment, results_path(file), bases, rows, left, len(cells) - len(left))


def _companions(cell: Cell) -> tuple[Kind, ...]:
    """Kinds of the cells that one is compared with."""
    return ("base",) if cell.kind in ("base", "trained") else ("base", "trained")


def _names(cells: Iterable[Cell]) -> list[str]:
    return list(dict.fromkeys(name for one in cells for name in (one.model, one.source) if name))


def _has(cells: Iterable[Cell], task_name: str) -> bool:
    return any(one.task == task_name for one in cells)


def _registered(experiment: Experiment, name: str) -> BaseRef:
    """The base as the catalog knows it; one that it does not know gets the experiment's name."""
    location = experiment.located(experiment.base(name).location)
    with open_catalog().begin() as work:
        found = find_base(work, location, shared=open_stored())
        if work.base_with_digest(found.digest) is None:
            found = open_base(location, name=name, shared=open_stored())
            register_base(work, found)
    return base_ref(found)
