"""Plots of a migration as SVG text: losses against controls, energy kept, update norms."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cross_lora_core.catalog import MeasureRecord
from cross_lora_core.reporting.data import ItemReport

__all__ = ["LOSS_LABELS", "bare_axes", "plot_energy", "plot_losses", "plot_norms", "svg_text"]

LOSS_LABELS = ("target base", "zero", "random", "migrated")
"""Measured on the target, in this order; the same text on the same scale."""

_COLOURS = {
    "target base": "#4b5563",
    "zero": "#9ca3af",
    "random": "#d97706",
    "migrated": "#2563eb",
    "source base": "#86a08b",
    "source adapter": "#15803d",
}
_ROLE_COLOURS = {
    "q": "#2563eb",
    "k": "#0891b2",
    "v": "#7c3aed",
    "o": "#db2777",
    "gate": "#d97706",
    "up": "#65a30d",
    "down": "#111827",
}


def svg_text(figure: Figure) -> str:
    """The figure as SVG, the same bytes every time, without the XML declaration."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "cross-lora", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def bare_axes(axes: Axes) -> None:
    """Leave of the frame only what is read."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.grid(axis="y", alpha=0.25, linewidth=0.6)


def plot_losses(item: ItemReport) -> str:
    """Bars of the mean loss of one item: source base and adapter, then the target with its controls."""
    labels = [label for label in ("source base", "source adapter", *LOSS_LABELS) if label in item.losses]
    figure = Figure(figsize=(6.2, 2.9))
    axes = figure.add_subplot()
    heights = [item.losses[label] for label in labels]
    bars = axes.bar(range(len(labels)), heights, color=[_COLOURS[label] for label in labels], width=0.62)
    axes.bar_label(bars, fmt="%.4f", fontsize=8, padding=2)
    axes.set_xticks(range(len(labels)), [label.replace(" ", "\n") for label in labels])
    axes.set_ylabel("nats per character", fontsize=9)
    axes.set_ylim(0, max(heights) * 1.15)
    bare_axes(axes)
    return svg_text(figure)


def _by_role(modules: Iterable[MeasureRecord]) -> dict[str, list[MeasureRecord]]:
    grouped: dict[str, list[MeasureRecord]] = defaultdict(list)
    for row in sorted(modules, key=lambda one: one.layer):
        grouped[row.role].append(row)
    return {role: grouped[role] for role in _ROLE_COLOURS if role in grouped}


def _lines(axes: Axes, modules: Sequence[MeasureRecord], field: str) -> None:
    for role, rows in _by_role(modules).items():
        points = [(row.layer, value) for row in rows if (value := getattr(row, field)) is not None]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1.2,
                  color=_ROLE_COLOURS[role], label=role)  # fmt: skip
    axes.set_xlabel("target layer", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    bare_axes(axes)


def plot_energy(item: ItemReport) -> str | None:
    """Two panels by layer and role: share kept of the update and of the source weight."""
    modules = [row for row in item.modules if row.retained_energy is not None]
    if not modules:
        return None
    figure = Figure(figsize=(9.4, 2.9))
    left, right = figure.subplots(1, 2)
    _lines(left, modules, "retained_energy")
    left.set_title("share of ΔW kept", fontsize=10)
    _lines(right, modules, "source_energy")
    right.set_title("share of the source weight kept", fontsize=10)
    for axes in (left, right):
        axes.set_ylim(0, 1.05)
    right.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return svg_text(figure)


def plot_norms(item: ItemReport) -> str | None:
    """Norm of every update after, beside that before or, where it was fitted, how well; by layer and role."""
    if not item.modules:
        return None
    figure = Figure(figsize=(9.4, 2.9))
    carried = any(row.source_norm is not None for row in item.modules)
    left, right = figure.subplots(1, 2, sharey=carried)
    if carried:
        _lines(left, item.modules, "source_norm")
        left.set_title("‖ΔW‖ on the source", fontsize=10)
    else:
        _lines(left, item.modules, "explained")
        left.set_title("share of the wanted change explained", fontsize=10)
    _lines(right, item.modules, "norm")
    right.set_title("‖ΔW‖ on the target", fontsize=10)
    right.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return svg_text(figure)
