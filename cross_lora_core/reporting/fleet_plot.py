"""One picture of a whole fleet: how much each measured adapter improves its target, with intervals."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.figure import Figure

from cross_lora_core.reporting.data import ItemReport

__all__ = ["plot_fleet"]

_MOST = 40
_COLOURS = {"copied": "#15803d", "migrated": "#15803d", "harmful": "#dc2626"}
_OTHER = "#6b7280"


def plot_fleet(items: Sequence[ItemReport]) -> bytes | None:
    """Improvement with its interval per measured item, the best on top, as PNG.

    Of more than 40 items those whose loss moved most are shown. None if nothing was measured.
    """
    measured = [one for one in items if one.improvement]
    chosen = sorted(measured, key=_moved, reverse=True)[:_MOST]
    if not chosen:
        return None
    chosen.sort(key=lambda one: one.improvement.mean if one.improvement else 0.0)
    figure = Figure(figsize=(7.5, 1.0 + 0.28 * len(chosen)))
    axes = figure.add_subplot()
    for height, one in enumerate(chosen):
        assert one.improvement is not None
        colour = _COLOURS.get(one.verdict, _OTHER)
        axes.plot([one.improvement.low, one.improvement.high], [height, height], color=colour, linewidth=2)
        axes.plot(one.improvement.mean, height, "o", color=colour, markersize=5)
    axes.axvline(0, color="#111827", linewidth=0.8)
    axes.set_yticks(range(len(chosen)), [f"{one.adapter} → {one.target}" for one in chosen], fontsize=8)
    axes.set_ylim(-0.7, len(chosen) - 0.3)
    axes.set_xlabel("fall of the loss against the target base, nats per character", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", metadata={"Software": None})
    return buffer.getvalue()


def _moved(item: ItemReport) -> float:
    return abs(item.improvement.mean) if item.improvement else 0.0
