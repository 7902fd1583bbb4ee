"""Reports of a migration: an HTML page that stands alone, and the same table as Markdown."""

from cross_lora_core.reporting.data import Interval, ItemReport, MigrationReport
from cross_lora_core.reporting.page import VERDICT_MEANINGS, render_markdown, render_page

__all__ = [
    "VERDICT_MEANINGS",
    "Interval",
    "ItemReport",
    "MigrationReport",
    "render_markdown",
    "render_page",
]
