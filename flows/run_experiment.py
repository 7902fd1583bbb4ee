"""Run an experiment: train on source and target, move every adapter by every method, measure each cell.

What is measured is the product: every transfer is a migration by `migrate_fleet`, from one trained adapter to
one target. A cell goes into the results file as soon as it is measured, one that is there is not run again,
and a cell that breaks fails alone, so that the same command resumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import PurePath
from typing import Any

from prefect import flow, runtime
from prefect.futures import PrefectFuture

from cross_lora_core.errors import CrossLoraError
from cross_lora_core.experiments import (
    Cell,
    CellResult,
    Cost,
    Meter,
    Training,
    recipe_of,
    record,
    request_for,
)
from cross_lora_core.migration import ItemOutcome
from flows.migrate_fleet import migrate_fleet
from flows.outages import riding_out
from flows.progress import ProgressListener, current_listener, listening, watched
from flows.task_runners import RUNNER
from tasks.measure_cell import CellJob, measure_cell, measure_energies
from tasks.plan_experiment import ExperimentPlan, plan_experiment
from tasks.train_adapter import TrainedAdapter, train_on_base

__all__ = ["ExperimentOutcome", "run_experiment"]


@dataclass(frozen=True)
class ExperimentOutcome:
    """What a run of an experiment came to, in numbers of cells.

    Attributes:
        results: the results file.
        found: done before.
        failures: reason by id of those that failed; they are run again next time.
    """

    experiment: str
    results: str
    found: int
    measured: int
    refused: int
    failures: dict[str, str]


def _run_name() -> str:
    return PurePath(runtime.flow_run.parameters["file"]).stem


@flow(name="run-experiment", flow_run_name=_run_name, task_runner=RUNNER, persist_result=False)
def run_experiment(file: str, cells: str = "*", force: bool = False) -> ExperimentOutcome:
    """Measure the cells of an experiment file that are not measured yet.

    Args:
        file: The experiment file, on this machine
        cells: Pattern of the ids of the cells to run; what they are compared with is run too
        force: Run the chosen cells whether they are done or not; what store and catalog hold is still used
    """
    return riding_out(lambda: _Run(plan_experiment(file, cells, force)).whole())


@dataclass
class _Run:
    """One run: the plan, the adapters trained for it, and what became of its cells."""

    plan: ExperimentPlan
    trained: dict[Training, TrainedAdapter | CrossLoraError] = field(default_factory=dict)
    done: dict[str, CellResult] = field(default_factory=dict)

    def whole(self) -> ExperimentOutcome:
        """Everything that is left, what others are compared with first."""
        current_listener().expect("cells", len(self.plan.keys))
        self._measure_energies()
        for cell in self.plan.pending("base"):
            self._measure(cell, {})
        self._train()
        for cell in self.plan.pending("trained"):
            self._measure_trained(cell)
        moved = self.plan.pending("transferred", "zero", "random")
        for transfer, own in groupby(moved, key=lambda one: one.beside("transferred")):
            self._transfer(transfer, list(own))
        return self._outcome()

    def _measure_energies(self) -> None:
        for name, own in groupby(self.plan.pending("energy"), key=lambda one: one.model):
            cells = {one: self.plan.keys[one] for one in own}
            found = _settled(measure_energies.submit(self.plan.bases[name], cells))
            self._keep(list(cells), found)

    def _train(self) -> None:
        """All adapters; those of one base one after another, so that it stays in memory."""
        current_listener().expect("train", len(self.plan.trainings))
        for training in self.plan.trainings:
            recipe = recipe_of(self.plan.experiment, training)
            rows = self.plan.rows[training.task].training
            future = train_on_base.submit(self.plan.bases[training.base], training, recipe, rows)
            self.trained[training] = _settled(watched("train", future))

    def _measure_trained(self, cell: Cell) -> None:
        adapter = self._trained_on(cell, cell.model)
        if isinstance(adapter, CrossLoraError):
            self._keep([cell], adapter)
        else:
            self._measure(cell, {"cost": adapter.cost}, adapter=adapter.location, steps=adapter.steps)

    def _trained_on(self, cell: Cell, base: str | None) -> TrainedAdapter | CrossLoraError:
        training = cell.training_on(base)
        assert training is not None
        return self.trained[training]

    def _transfer(self, transfer: Cell, cells: Sequence[Cell]) -> None:
        """Migrate the adapter of a transfer, and measure what it came to, controls beside it."""
        ours, theirs = (self._trained_on(transfer, base) for base in (transfer.source, transfer.model))
        if isinstance(ours, CrossLoraError):
            return self._keep(cells, ours)
        if isinstance(theirs, CrossLoraError):
            return self._keep(cells, theirs)
        moved = self._migrate(transfer, ours.location)
        if isinstance(moved, CrossLoraError):
            return self._keep(cells, moved)
        outcome, cost = moved
        for cell in cells:
            told = {"cost": cost, "verdict": outcome.verdict, "reason": outcome.reason}
            own = told if cell.kind == "transferred" else {}
            if outcome.output is None:
                self._keep([cell], self._without_figures(cell, outcome))
            else:
                self._measure(cell, own, adapter=outcome.output, trained=theirs.location)
        return None

    def _migrate(self, transfer: Cell, adapter: str) -> tuple[ItemOutcome, Cost | None] | CrossLoraError:
        """What became of the migration, and what it took until the adapter was published."""
        plan = self.plan
        assert transfer.source is not None
        assert transfer.task is not None
        source, target = plan.bases[transfer.source], plan.bases[transfer.model]
        rows = plan.rows[transfer.task].evaluation
        metered = _Metered(current_listener())
        try:
            with listening(metered):
                outcome = migrate_fleet(request_for(plan.experiment, transfer, source, target, adapter, rows))
        except CrossLoraError as error:
            return _final(error)
        (item,) = outcome.items
        return item, metered.cost

    def _without_figures(self, cell: Cell, outcome: ItemOutcome) -> CellResult:
        failed = outcome.status == "failed"
        return CellResult(
            cell=cell,
            key=self.plan.keys[cell],
            status="failed" if failed else "refused",
            reason=outcome.reason,
            verdict=outcome.verdict,
        )

    def _measure(self, cell: Cell, facts: Mapping[str, Any], **given: Any) -> None:
        """Measure a cell with what `CellJob` is given; `facts` are kept beside its figures."""
        assert cell.task is not None
        experiment = self.plan.experiment
        job = CellJob(
            cell,
            self.plan.keys[cell],
            self.plan.bases[cell.model],
            self.plan.rows[cell.task].evaluation,
            output_dtype=experiment.transfer.output_dtype,
            confidence=experiment.confidence,
            generate=experiment.task(cell.task).generate,
            **given,
        )
        found = _settled(measure_cell.submit(job))
        self._keep([cell], found if isinstance(found, CrossLoraError) else found.model_copy(update=facts))

    def _keep(self, cells: Sequence[Cell], found: CellResult | Sequence[CellResult] | CrossLoraError) -> None:
        """Put what became of some cells into the results file."""
        results = [found] if isinstance(found, CellResult) else found
        if isinstance(results, CrossLoraError):
            failed = {"status": "failed", "reason": f"{type(results).__name__}: {results}"}
            results = [CellResult(cell=one, key=self.plan.keys[one], **failed) for one in cells]
        by_id = {one.cell.id: one for one in results}
        record(self.plan.results, self.plan.experiment.name, by_id)
        self.done |= by_id
        for _ in by_id:
            current_listener().advance("cells")

    def _outcome(self) -> ExperimentOutcome:
        by_status: Mapping[str, list[CellResult]] = {
            status: [one for one in self.done.values() if one.status == status]
            for status in ("measured", "refused", "failed")
        }
        return ExperimentOutcome(
            experiment=self.plan.experiment.name,
            results=str(self.plan.results),
            found=self.plan.found,
            measured=len(by_status["measured"]),
            refused=len(by_status["refused"]),
            failures={one.cell.id: one.reason for one in by_status["failed"]},
        )


class _Metered:
    """Passes on what it hears of a migration, and reads the meter whenever an adapter was published."""

    def __init__(self, heard: ProgressListener) -> None:
        self._heard = heard
        self._meter = Meter()
        self.cost: Cost | None = None

    def expect(self, stage: str, count: int) -> None:
        """See `ProgressListener.expect`."""
        self._heard.expect(stage, count)

    def advance(self, stage: str) -> None:
        """See `ProgressListener.advance`."""
        if stage == "publish":
            self.cost = self._meter.read()
        self._heard.advance(stage)


def _settled(future: PrefectFuture[Any]) -> Any:
    """What a task run returned, or the error that the same run would meet again; any other is raised."""
    try:
        return future.result()
    except CrossLoraError as error:
        return _final(error)


def _final(error: CrossLoraError) -> CrossLoraError:
    if error.retryable:
        raise error
    return error
