"""An experiment as a file: what is trained, moved and measured, its results, and how they are shown.

experiment = load_experiment("controlled.toml")      # spec: bases, pairs, tasks, recipes, methods
cells_of(experiment)                                 # every figure to be measured, by name
results = read_results(path, experiment.name)        # one JSON file, replaced whole
tables_of(experiment, results); plots_of(experiment, results)
"""

from cross_lora_core.experiments.cells import CONTROLS, Cell, Kind, Training, cells_of, chosen_cells
from cross_lora_core.experiments.energy import energies_kept
from cross_lora_core.experiments.keys import (
    RowsRef,
    TaskRows,
    cell_key,
    recipe_of,
    request_for,
    trained_prefix,
)
from cross_lora_core.experiments.measuring import Meter, machine
from cross_lora_core.experiments.plots import plots_of
from cross_lora_core.experiments.recipes import NAMED_RECIPES, Recipe, RecipeEntry
from cross_lora_core.experiments.results import (
    AdapterFacts,
    CellResult,
    Cost,
    Energy,
    LossesKept,
    Results,
    read_results,
    record,
)
from cross_lora_core.experiments.so_far import run_so_far
from cross_lora_core.experiments.spec import BaseEntry, Experiment, Pair, RowsFile, TaskEntry, load_experiment
from cross_lora_core.experiments.table import Table, as_markdown
from cross_lora_core.experiments.tables import tables_of

__all__ = [
    "CONTROLS",
    "NAMED_RECIPES",
    "AdapterFacts",
    "BaseEntry",
    "Cell",
    "CellResult",
    "Cost",
    "Energy",
    "Experiment",
    "Kind",
    "LossesKept",
    "Meter",
    "Pair",
    "Recipe",
    "RecipeEntry",
    "Results",
    "RowsFile",
    "RowsRef",
    "Table",
    "TaskEntry",
    "TaskRows",
    "Training",
    "as_markdown",
    "cell_key",
    "cells_of",
    "chosen_cells",
    "energies_kept",
    "load_experiment",
    "machine",
    "plots_of",
    "read_results",
    "recipe_of",
    "record",
    "request_for",
    "run_so_far",
    "tables_of",
    "trained_prefix",
]
