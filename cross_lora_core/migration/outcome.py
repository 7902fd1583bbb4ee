"""What became of each item of a migration, in the words scripts read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["CandidateOutcome", "ItemOutcome", "MigrationOutcome"]


@dataclass(frozen=True)
class CandidateOutcome:
    """What one method of those that `auto` tried made of an adapter.

    Attributes:
        verdict: at the confidence corrected for the number of methods.
        output: what it wrote, taken or not.
        improvement: fall of the loss against the target base.
        random: the same with a random update of the same size.
        recovered: `improvement` as a share of what the adapter gains on its own base.
    """

    method: str
    verdict: str
    output: str
    improvement: float | None
    random: float | None
    recovered: float | None


@dataclass(frozen=True)
class ItemOutcome:
    """One adapter on one target.

    Attributes:
        status: `done`, `refused` or `failed`.
        verdict: see `cross_lora_core.evaluation.Verdict`.
        output: a folder or URL that PEFT loads, or None.
        method: that made the output; of several tried the chosen one. None where nothing was made.
        improvement: fall of the loss on the evaluation file against the target base, nats per character.
        random: the same with a random update of the same size.
        recovered: that fall as a share of what the adapter gains on its own base.
    """

    adapter: str
    target: str
    status: str
    verdict: str
    reason: str
    modules_expected: int
    modules_landed: int
    output: str | None
    improvement: float | None = None
    recovered: float | None = None
    method: str | None = None
    random: float | None = None
    candidates: tuple[CandidateOutcome, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class MigrationOutcome:
    """A finished migration."""

    migration: int
    source: str
    method: str
    items: tuple[ItemOutcome, ...]
    report: str | None

    @property
    def complete(self) -> bool:
        """Whether every item was done: none refused, none failed."""
        return all(item.status == "done" for item in self.items)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)
