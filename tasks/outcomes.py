"""An item's rows in the catalog as its outcome."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cross_lora_core.catalog import ItemRecord, Work
from cross_lora_core.migration import CandidateOutcome, ItemOutcome

__all__ = ["outcome_of"]


def outcome_of(work: Work, record: ItemRecord) -> ItemOutcome:
    """What became of an item, as scripts read it."""
    verdict = work.verdict_of(record.id)
    evidence = verdict.evidence if verdict else {}
    return ItemOutcome(
        adapter=record.adapter_name,
        target=work.base(record.target_base_id).name,
        status=record.status,
        verdict=record.verdict or "failed",
        reason=record.reason,
        modules_expected=record.modules_expected,
        modules_landed=record.modules_landed,
        output=record.output,
        improvement=_improvement(evidence),
        recovered=evidence.get("recovered"),
        method=record.method,
        random=_random(evidence),
        candidates=tuple(_candidate(one) for one in evidence.get("candidates") or ()),
    )


def _candidate(figures: Mapping[str, Any]) -> CandidateOutcome:
    return CandidateOutcome(
        method=figures["method"],
        verdict=figures["verdict"],
        output=figures["output"],
        improvement=_improvement(figures),
        random=_random(figures),
        recovered=figures.get("recovered"),
    )


def _improvement(figures: Mapping[str, Any]) -> float | None:
    interval = figures.get("improvement")
    return interval["mean"] if interval else None


def _random(figures: Mapping[str, Any]) -> float | None:
    means = figures.get("means")
    return means["target base"] - means["random"] if means else None
