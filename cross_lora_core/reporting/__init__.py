"""Reports of a migration: an HTML page that stands alone, the same table as Markdown, a plot of the fleet."""

from cross_lora_core.reporting.data import CandidateReport, Interval, ItemReport, MigrationReport
from cross_lora_core.reporting.fleet_plot import plot_fleet
from cross_lora_core.reporting.page import VERDICT_MEANINGS, render_markdown, render_page
from cross_lora_core.reporting.plots import bare_axes, svg_text

__all__ = [
    "VERDICT_MEANINGS",
    "CandidateReport",
    "Interval",
    "ItemReport",
    "MigrationReport",
    "bare_axes",
    "plot_fleet",
    "render_markdown",
    "render_page",
    "svg_text",
]
