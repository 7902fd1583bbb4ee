"""The part of an experiment that has been run: what its tables and plots are about."""

from __future__ import annotations

from cross_lora_core.experiments.cells import cells_of
from cross_lora_core.experiments.results import Results
from cross_lora_core.experiments.spec import Experiment

__all__ = ["run_so_far"]


def run_so_far(experiment: Experiment, results: Results) -> Experiment:
    """The experiment without bases, pairs, tasks, recipes, methods, seeds and ranks that no cell was run of.

    One of which nothing was run stays whole: its tables then show what there is to run.
    """
    run = [one for one in cells_of(experiment) if results.of(one)]
    if not run:
        return experiment
    bases = {one.model for one in run} | {one.source for one in run}
    pairs = {(one.source, one.model) for one in run}
    tasks, recipes, methods, seeds = ({getattr(one, name) for one in run} for name in _NAMES)
    ranks = {one.rank for one in run if one.kind != "energy"}
    energies = {one.rank for one in run if one.kind == "energy"}
    return experiment.model_copy(
        update={
            "bases": tuple(one for one in experiment.bases if one.name in bases),
            "pairs": tuple(one for one in experiment.pairs if (one.source, one.target) in pairs),
            "tasks": tuple(one for one in experiment.tasks if one.name in tasks),
            "recipes": {name: one for name, one in experiment.recipes.items() if name in recipes},
            "methods": tuple(one for one in experiment.methods if one in methods),
            "seeds": tuple(one for one in experiment.seeds if one in seeds),
            "ranks": tuple(one for one in experiment.ranks if one in ranks),
            "energy_ranks": tuple(one for one in experiment.energy_ranks if one in energies),
        }
    )


_NAMES = ("task", "recipe", "method", "seed")
"""Fields of a cell that are names in the experiment."""
