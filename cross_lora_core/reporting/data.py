"""What a report shows, as plain frozen values; filled from the catalog by the caller."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cross_lora_core.catalog import MeasureRecord
from cross_lora_core.evaluation import Verdict

__all__ = ["CandidateReport", "Interval", "ItemReport", "MigrationReport"]


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval, in nats per character."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class CandidateReport:
    """What one of several methods made of an item; fields as in `ItemReport`."""

    method: str
    verdict: str
    reason: str
    losses: dict[str, float]
    improvement: Interval | None
    recovered: float | None


@dataclass(frozen=True)
class ItemReport:
    """One adapter on one target.

    Attributes:
        losses: mean nats per character by label: `target base`, `migrated`,
            `zero`, `random`, `source base`, `source adapter`.
        improvement: fall of the loss against the target base (positive is better).
        over_random: fall of the loss against a random update of equal norm.
        recovered: share of the adapter's gain on its own base that is found on the target.
        method: that made the output.
        candidates: the methods that were tried, where the evidence had to choose.
        left_out: methods that were not tried, and why.
    """

    adapter: str
    target: str
    status: str
    verdict: str
    reason: str
    modules_expected: int
    modules_landed: int
    output: str | None
    rows: int
    losses: dict[str, float] = field(default_factory=dict)
    improvement: Interval | None = None
    over_random: Interval | None = None
    recovered: float | None = None
    modules: tuple[MeasureRecord, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    lineage: dict[str, Any] = field(default_factory=dict)
    method: str | None = None
    candidates: tuple[CandidateReport, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class MigrationReport:
    """One migration with all its items.

    Attributes:
        detailed: whether its items have the measures of their modules, which are drawn.
    """

    migration: str
    source: str
    targets: tuple[str, ...]
    method: str
    settings: dict[str, Any]
    started: datetime | None
    finished: datetime | None
    items: tuple[ItemReport, ...]
    detailed: bool = True

    @property
    def counts(self) -> dict[str, int]:
        """Items per verdict, most promising first."""
        found = {verdict: sum(item.verdict == verdict for item in self.items) for verdict in Verdict}
        return {str(verdict): count for verdict, count in found.items() if count}
