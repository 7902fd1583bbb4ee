"""What a report shows, as plain frozen values; filled from the catalog by the caller."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cross_lora_core.catalog import MeasureRecord

__all__ = ["Interval", "ItemReport", "MigrationReport"]


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap interval, in nats per character."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ItemReport:
    """One adapter on one target.

    Attributes:
        losses: mean nats per character by label: `target base`, `migrated`,
            `zero`, `random`, `source base`, `source adapter`.
        improvement: fall of the loss against the target base (positive is better).
        over_random: fall of the loss against a random update of equal norm.
        recovered: share of the adapter's gain on its own base that is found on the target.
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


@dataclass(frozen=True)
class MigrationReport:
    """One migration with all its items."""

    migration: str
    source: str
    targets: tuple[str, ...]
    method: str
    settings: dict[str, Any]
    started: datetime | None
    finished: datetime | None
    items: tuple[ItemReport, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Items per verdict, most promising first."""
        order = ("copied", "migrated", "no_effect", "harmful", "unverified", "refused", "failed")
        found = {verdict: sum(item.verdict == verdict for item in self.items) for verdict in order}
        return {verdict: count for verdict, count in found.items() if count}
