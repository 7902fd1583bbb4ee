"""The cells of an experiment: every figure that is measured, by a name that says what it is."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import product
from typing import Literal

from pydantic import BaseModel, ConfigDict

from cross_lora_core.errors import ConfigurationError
from cross_lora_core.experiments.spec import Experiment, Pair
from cross_lora_core.migration import METHOD_NEEDS, Method

__all__ = ["CONTROLS", "Cell", "Kind", "Training", "cells_of", "chosen_cells", "ranks_of"]

Kind = Literal["base", "trained", "transferred", "zero", "random", "energy"]

CONTROLS: tuple[Kind, ...] = ("zero", "random")
"""Measured beside every transfer: nothing at all, and noise of the same norm."""


class Training(BaseModel):
    """One adapter to be trained."""

    model_config = ConfigDict(frozen=True)

    base: str
    task: str
    recipe: str
    seed: int


class Cell(BaseModel):
    """One measured figure; what does not apply is None.

    Attributes:
        kind: `base` alone; an adapter `trained` on it, or `transferred` to it; a control beside a transfer;
            `energy` kept of its weights.
        model: the base it is measured on, by its name in the experiment.
        source: base that a transferred adapter was trained on.
        method: of the transfer.
        rank: singular vectors kept per base weight; of methods that keep some.
    """

    model_config = ConfigDict(frozen=True)

    kind: Kind
    model: str
    task: str | None = None
    recipe: str | None = None
    seed: int | None = None
    source: str | None = None
    method: Method | None = None
    rank: int | None = None

    @property
    def id(self) -> str:
        """`transferred/first:second/iso-dates/strong/0/cross-lora@320`; what patterns are matched with."""
        where = f"{self.source}:{self.model}" if self.source else self.model
        method = None if self.method is None else str(self.method)
        if self.rank is not None:
            method = f"{method or 'rank'}@{self.rank}"
        parts = (self.kind, where, self.task, self.recipe, self.seed, method)
        return "/".join(str(one) for one in parts if one is not None)

    def training_on(self, base: str | None) -> Training | None:
        """The adapter of this cell's task, recipe and seed on a base; None where the cell needs none."""
        if base is None or self.task is None or self.recipe is None or self.seed is None:
            return None
        return Training(base=base, task=self.task, recipe=self.recipe, seed=self.seed)

    def beside(self, kind: Kind) -> Cell:
        """The cell of another kind that this one is compared with."""
        keeps: dict[Kind, tuple[str, ...]] = {
            "base": ("model", "task"),
            "trained": ("model", "task", "recipe", "seed"),
        }
        return Cell(kind=kind, **self.model_dump(include=set(keeps.get(kind, _TRANSFER))))


_TRANSFER = ("model", "task", "recipe", "seed", "source", "method", "rank")


def cells_of(experiment: Experiment) -> tuple[Cell, ...]:
    """Every cell, those that others are compared with first."""
    return (*_energies(experiment), *_bases(experiment), *_trained(experiment), *_transfers(experiment))


def chosen_cells(experiment: Experiment, pattern: str) -> tuple[Cell, ...]:
    """The cells whose id matches a shell pattern.

    Raises:
        ConfigurationError: none does.
    """
    cells = cells_of(experiment)
    chosen = tuple(one for one in cells if fnmatchcase(one.id, pattern))
    if not chosen:
        raise ConfigurationError(
            f"a pattern that matches one of the {len(cells)} cells of {experiment.name}",
            repr(pattern),
            "--cell",
            f"Cells are named like {cells[-1].id!r}; * stands for anything."
            if cells
            else "The experiment has no tasks and no energy_ranks.",
        )
    return chosen


def _energies(experiment: Experiment) -> Iterator[Cell]:
    for base, rank in product(experiment.base_names, experiment.energy_ranks):
        yield Cell(kind="energy", model=base, rank=rank)


def _bases(experiment: Experiment) -> Iterator[Cell]:
    for base, task in product(experiment.base_names, experiment.tasks):
        yield Cell(kind="base", model=base, task=task.name)


def _trained(experiment: Experiment) -> Iterator[Cell]:
    for base, task, recipe, seed in product(
        experiment.base_names, experiment.tasks, experiment.recipes, experiment.seeds
    ):
        yield Cell(kind="trained", model=base, task=task.name, recipe=recipe, seed=seed)


def _transfers(experiment: Experiment) -> Iterator[Cell]:
    """Of every adapter, method after method, each with its controls."""
    for pair, task, recipe, seed in product(
        experiment.pairs, experiment.tasks, experiment.recipes, experiment.seeds
    ):
        for method in experiment.methods:
            for rank in ranks_of(experiment, method):
                yield from _transfer(pair, task.name, recipe, seed, method, rank)


def ranks_of(experiment: Experiment, method: Method) -> tuple[int | None, ...]:
    """Ranks of the bases that a method is run with; None alone where it keeps no singular vectors."""
    keeps_some = METHOD_NEEDS[method].factors or method is Method.AUTO
    return experiment.ranks if keeps_some else (None,)


def _transfer(
    pair: Pair, task: str, recipe: str, seed: int, method: Method, rank: int | None
) -> Iterator[Cell]:
    moved = Cell(
        kind="transferred",
        model=pair.target,
        task=task,
        recipe=recipe,
        seed=seed,
        source=pair.source,
        method=method,
        rank=rank,
    )
    yield moved
    for kind in CONTROLS:
        yield moved.beside(kind)
