"""A table as a value, how its figures are written, and how it looks in Markdown.

A cell that was not run is a dot, one that has nothing to measure a dash.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from cross_lora_core.evaluation import Figures, Interval
from cross_lora_core.experiments.results import CellResult

__all__ = ["NOTHING", "NOT_RUN", "Table", "as_markdown", "gap_text", "interval_text", "loss_text", "text_of"]

NOT_RUN, NOTHING = "·", "–"


@dataclass(frozen=True)
class Table:
    """A table with what is needed to read it.

    Attributes:
        name: of an anchor or a file.
        title: one line.
        note: what the figures are.
        headers: of the columns.
        rows: cells as text.
        labels: leading columns that name a row, where all others are of one kind; 0 where they are not.
    """

    name: str
    title: str
    note: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    labels: int = 0

    @property
    def width(self) -> int:
        """Characters of the widest line, two between columns."""
        columns = zip(self.headers, *self.rows, strict=True)
        return sum(max(map(len, column)) + 2 for column in columns)

    def narrow(self) -> Table:
        """The same with one figure a line, where that can be done."""
        if not self.labels:
            return self
        rows = [
            (*row[: self.labels], header, cell)
            for row in self.rows
            for header, cell in zip(self.headers[self.labels :], row[self.labels :], strict=True)
        ]
        return replace(
            self, headers=(*self.headers[: self.labels], "of", "figure"), rows=tuple(rows), labels=0
        )


def as_markdown(table: Table) -> str:
    """The table under its title and note."""
    lines = [table.headers, tuple("---" for _ in table.headers), *table.rows]
    body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"## {table.title}\n\n{table.note}\n\n{body}\n"


def text_of(found: CellResult | None, show: Callable[[Figures], str]) -> str:
    """A figure of a cell, if it was run and there was something to measure."""
    if found is None:
        return NOT_RUN
    return show(found.figures) if found.figures else NOTHING


def loss_text(found: CellResult | None) -> str:
    """Mean loss."""
    return text_of(found, lambda one: f"{one.loss.mean:.4f}")


def interval_text(one: Interval | None, form: str) -> str:
    """A mean with its interval, both in a format such as `+.4f`."""
    return NOTHING if one is None else f"{one.mean:{form}} ({one.low:{form}} … {one.high:{form}})"


def gap_text(one: Figures) -> str:
    """Share of the gap recovered; `no gap` where training on the target surely gains nothing."""
    if one.gap is None:
        return NOTHING
    return interval_text(one.gap.share, "+.1%") if one.gap.share else "no gap"
