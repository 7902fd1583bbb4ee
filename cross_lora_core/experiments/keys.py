"""What a trained adapter and a measured cell depend on, as content keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cross_lora_core.experiments.cells import Cell, Training
from cross_lora_core.experiments.recipes import Recipe
from cross_lora_core.experiments.spec import Experiment
from cross_lora_core.migration import (
    BaseRef,
    MigrationRequest,
    TransferOptions,
    TransferSpec,
    content_digest,
    path_segment,
    possible_rungs,
)
from cross_lora_core.settings import Settings

__all__ = ["RowsRef", "TaskRows", "cell_key", "recipe_of", "request_for", "trained_prefix"]

VERSION = 1
"""Raised whenever the same inputs would give other figures."""


@dataclass(frozen=True)
class RowsRef:
    """Rows that lie in the store.

    Attributes:
        digest: of everything in them.
        location: of their file, as `read_rows` takes it.
    """

    digest: str
    location: str


@dataclass(frozen=True)
class TaskRows:
    """The rows of a task."""

    training: RowsRef
    evaluation: RowsRef


def recipe_of(experiment: Experiment, training: Training) -> Recipe:
    """The recipe of one training: the file's, with the task's own steps and the seed."""
    steps = experiment.task(training.task).steps.get(training.recipe)
    return experiment.recipes[training.recipe].resolve(training.recipe, steps=steps, seed=training.seed)


def trained_prefix(base: BaseRef, training: Training, recipe: Recipe, rows: RowsRef) -> str:
    """Folder of a trained adapter in the store; its last part is the adapter's name in every migration."""
    version = content_digest([base.digest, base.tokenizer, recipe.as_dict(), rows.digest, VERSION])[:10]
    name = path_segment(f"{training.task}-{training.recipe}-{training.seed}-{version}")
    return f"trained/{base.digest}/{name}"


def request_for(
    experiment: Experiment, cell: Cell, source: BaseRef, target: BaseRef, adapter: str, rows: RowsRef
) -> MigrationRequest:
    """What the product is asked for, for a transferred cell.

    Args:
        experiment: that the cell is of.
        cell: transferred, or a control beside it.
        source: base of the adapter.
        target: base it goes to.
        adapter: location of the trained adapter.
        rows: that it is judged on.
    """
    return MigrationRequest(
        source=source.location,
        targets=[target.location],
        adapters=[adapter],
        requested_by=f"experiment {experiment.name}",
        **_options(experiment, cell, rows.location).model_dump(),
    )


def _options(experiment: Experiment, cell: Cell, evaluation: str | None = None) -> TransferOptions:
    fields = experiment.transfer.model_dump() | {"method": cell.method, "evaluation": evaluation}
    return TransferOptions.model_validate(fields | ({"rank": cell.rank} if cell.rank else {}))


def cell_key(
    experiment: Experiment,
    cell: Cell,
    bases: Mapping[str, BaseRef],
    rows: Mapping[str, TaskRows],
    settings: Settings,
) -> str:
    """Digest of everything a cell's figure depends on besides the machine.

    Args:
        experiment: that the cell is of.
        cell: any.
        bases: those of the cell, by name.
        rows: those of its task, by the task's name.
        settings: how losses are measured and intervals drawn.
    """
    parts: list[object] = [VERSION, cell.id, experiment.confidence, settings.seed, settings.evaluation_dtype]
    parts += [(bases[one].digest, bases[one].tokenizer) for one in (cell.model, cell.source) if one]
    if cell.task:
        parts += [rows[cell.task].evaluation.digest, experiment.task(cell.task).generate]
    training = cell.training_on(cell.model)
    if training:
        parts += [recipe_of(experiment, training).as_dict(), rows[training.task].training.digest]
    if cell.source:
        spec = TransferSpec.from_request(_options(experiment, cell))
        parts += [one for rung in possible_rungs(spec) for one in (rung.digest, rung.transport_digest)]
    return content_digest(parts)
