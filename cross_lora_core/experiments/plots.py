"""Plots of an experiment as SVG: gap recovered by method, source × target, rank, energy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cross_lora_core.experiments.cells import Kind, cells_of
from cross_lora_core.experiments.results import Results
from cross_lora_core.experiments.scores import Column, columns_of, gaps, mean, pair_name
from cross_lora_core.experiments.spec import Experiment, Pair
from cross_lora_core.reporting import bare_axes, svg_text

__all__ = ["plots_of"]

_COLOURS = ("#2563eb", "#d97706", "#15803d", "#7c3aed", "#db2777", "#0891b2", "#65a30d", "#111827")
_RANDOM = "#9ca3af"

_LOWEST = -1.0
"""A method that does great harm would hide all others."""


def plots_of(experiment: Experiment, results: Results) -> dict[str, str]:
    """SVG text by name of the file, of every plot there are figures for."""
    plots: dict[str, str | None] = {"energy": _plot_energy(experiment, results)}
    for recipe in experiment.recipes:
        plots[f"gap-{recipe}"] = _plot_gaps(experiment, results, recipe)
        plots[f"ranks-{recipe}"] = _plot_ranks(experiment, results, recipe)
        for column in columns_of(experiment):
            name = f"pairs-{recipe}-{column}".replace(" @", "-").replace("+", "-and-")
            plots[name] = _plot_pairs(experiment, results, recipe, column)
    return {f"{name}.svg": text for name, text in plots.items() if text is not None}


def _plot_gaps(experiment: Experiment, results: Results, recipe: str) -> str | None:
    """Bars per pair, one per method, over that of its random control; a point per task and seed."""
    columns, pairs = columns_of(experiment), experiment.pairs
    if not any(gaps(experiment, results, *place) for place in product(pairs, [recipe], columns)):
        return None
    figure = Figure(figsize=(max(5.0, 1.2 + 0.32 * len(columns) * len(pairs)), 3.2))
    axes = figure.add_subplot()
    width = 0.8 / len(columns)
    for number, column in enumerate(columns):
        places = [place - 0.4 + (number + 0.5) * width for place in range(len(pairs))]
        _bars(axes, experiment, results, recipe, column, places, width, _COLOURS[number % len(_COLOURS)])
    axes.plot([], [], color=_RANDOM, linewidth=1.5, label="random")
    axes.axhline(0, color="#111827", linewidth=0.8)
    axes.set_xticks(range(len(pairs)), [_tick(one) for one in pairs], fontsize=8)
    lowest, _ = axes.get_ylim()
    axes.set_ylim(bottom=max(lowest, _LOWEST))
    axes.set_ylabel("gap recovered" + (f", cut at {_LOWEST:.0%}" if lowest < _LOWEST else ""), fontsize=9)
    axes.yaxis.set_major_formatter(_percent)
    bare_axes(axes)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return svg_text(figure)


def _tick(pair: Pair) -> str:
    return pair_name(pair).replace(" → ", "\n→ ") + ("\n(related)" if pair.related else "")


def _bars(
    axes: Axes,
    experiment: Experiment,
    results: Results,
    recipe: str,
    column: Column,
    places: Sequence[float],
    width: float,
    colour: str,
) -> None:
    for number, (place, pair) in enumerate(zip(places, experiment.pairs, strict=True)):
        found = gaps(experiment, results, pair, recipe, column)
        random = gaps(experiment, results, pair, recipe, column, "random")
        label = str(column) if number == 0 else None
        axes.bar(place, mean(found) if found else 0.0, width * 0.9, color=colour, alpha=0.75, label=label)
        axes.plot([place] * len(found), found, ".", color=colour, markersize=4)
        if random:
            ends = [place - 0.4 * width, place + 0.4 * width]
            axes.plot(ends, [mean(random)] * 2, color=_RANDOM, linewidth=1.5)


def _plot_pairs(experiment: Experiment, results: Results, recipe: str, column: Column) -> str | None:
    """Figure 4: source × target, mean share of the gap recovered."""
    shares = {
        (pair.source, pair.target): mean(found)
        for pair in experiment.pairs
        if (found := gaps(experiment, results, pair, recipe, column))
    }
    if len(shares) < 2:
        return None
    names = [one for one in experiment.base_names if any(one in pair for pair in shares)]
    grid = [[shares.get((source, target), float("nan")) for target in names] for source in names]
    figure = Figure(figsize=(1.8 + 0.9 * len(names), 1.2 + 0.7 * len(names)))
    axes = figure.add_subplot()
    most = max(0.05, *map(abs, shares.values()))
    image = axes.imshow(grid, cmap="RdBu", vmin=-most, vmax=most)
    for (source, target), share in shares.items():
        place = (names.index(target), names.index(source))
        colour = "white" if abs(share) > 0.6 * most else "#111827"
        axes.text(*place, f"{share:.1%}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(names)), names, fontsize=8, rotation=30, ha="right")
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("target", fontsize=9)
    axes.set_ylabel("source", fontsize=9)
    axes.set_title(f"gap recovered, {column}, {recipe}", fontsize=10)
    figure.colorbar(image, ax=axes, format=_percent)
    return svg_text(figure)


def _plot_ranks(experiment: Experiment, results: Results, recipe: str) -> str | None:
    """Figure 3: mean share of the gap by the rank kept of the bases, a line per pair, method and control."""
    if len(experiment.ranks) < 2:
        return None
    ranked = dict.fromkeys(one.method for one in columns_of(experiment) if one.rank is not None)
    kinds: tuple[tuple[Kind, str], ...] = (("transferred", ""), ("random", ", random"))
    lines = {
        f"{pair_name(pair)}, {method}{control}": [
            (rank, mean(found))
            for rank in sorted(experiment.ranks)
            if (found := gaps(experiment, results, pair, recipe, Column(method, rank), kind))
        ]
        for pair, method, (kind, control) in product(experiment.pairs, ranked, kinds)
    }
    return _plot_lines(lines, "rank kept of the bases", "gap recovered")


def _plot_energy(experiment: Experiment, results: Results) -> str | None:
    """Appendix C: mean share of the squared norm by rank, a line per base."""
    lines: dict[str, list[tuple[int, float]]] = {name: [] for name in experiment.base_names}
    for one in cells_of(experiment):
        found = results.of(one)
        if one.kind == "energy" and one.rank and found and found.energy:
            lines[one.model].append((one.rank, found.energy.mean))
    return _plot_lines({name: sorted(points) for name, points in lines.items()}, "rank", "energy kept")


def _plot_lines(lines: dict[str, list[tuple[int, float]]], across: str, up: str) -> str | None:
    if not any(lines.values()):
        return None
    figure = Figure(figsize=(5.6, 3.0))
    axes = figure.add_subplot()
    for number, (label, points) in enumerate(lines.items()):
        if points:
            colour = _COLOURS[number % len(_COLOURS)]
            axes.plot(
                *zip(*points, strict=True), marker="o", markersize=3, linewidth=1.2, color=colour, label=label
            )
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(up, fontsize=9)
    axes.set_xticks(sorted({place for points in lines.values() for place, _ in points}))
    axes.yaxis.set_major_formatter(_percent)
    bare_axes(axes)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return svg_text(figure)


def _percent(value: float, _position: float | None = None) -> str:
    return f"{100 * value:.4g} %"
