"""Render an experiment's results: tables as Markdown, plots as SVG; what the command line calls."""

from __future__ import annotations

from pathlib import Path

from cross_lora_core.experiments import (
    Experiment,
    Results,
    Table,
    as_markdown,
    cells_of,
    load_experiment,
    plots_of,
    read_results,
    run_so_far,
    tables_of,
)
from tasks.plan_experiment import results_path

__all__ = ["render_experiment", "tables_so_far"]


def tables_so_far(file: Path) -> tuple[Table, ...]:
    """The tables of what was measured so far.

    Raises:
        ConfigurationError: the experiment file or its results cannot be read.
    """
    experiment, results = _opened(file)
    return tables_of(run_so_far(experiment, results), results)


def render_experiment(file: Path, out: Path) -> list[Path]:
    """Write `tables.md` and the plots of an experiment into a folder of its own.

    Args:
        file: the experiment file.
        out: the folder is made below it.

    Returns:
        What was written.
    """
    experiment, results = _opened(file)
    folder = out / experiment.name
    folder.mkdir(parents=True, exist_ok=True)
    run = run_so_far(experiment, results)
    plots = plots_of(run, results)
    texts = {"tables.md": _page(experiment, run, results, list(plots)), **plots}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def _opened(file: Path) -> tuple[Experiment, Results]:
    experiment = load_experiment(file)
    return experiment, read_results(results_path(file), experiment.name)


def _page(experiment: Experiment, run: Experiment, results: Results, plots: list[str]) -> str:
    tables = [as_markdown(one) for one in tables_of(run, results)]
    shown = [f"![{name.removesuffix('.svg')}]({name})" for name in plots]
    return "\n".join([f"# {experiment.name}", "", _basis(experiment, run, results), *shown, "", *tables])


def _basis(experiment: Experiment, run: Experiment, results: Results) -> str:
    """How far the experiment is, and on what it was measured."""
    cells = cells_of(experiment)
    found = [one for one in map(results.of, cells) if one]
    machines = sorted({one.machine for one in found if one.machine})
    recipes = [f"- recipe `{name}`: {entry.resolve(name)}" for name, entry in run.recipes.items()]
    own_steps = [
        f"- task `{task.name}`: {steps} steps with recipe `{recipe}`"
        for task in run.tasks
        for recipe, steps in task.steps.items()
        if recipe in run.recipes
    ]
    measured = [f"- measured on: {one}" for one in machines]
    head = f"{len(found)} of {len(cells)} cells are done; of what is shown, dots were not run."
    return "\n".join([head, "", *recipes, *own_steps, *measured, ""])
