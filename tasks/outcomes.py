"""An item's rows in the catalog as its outcome."""

from __future__ import annotations

from cross_lora_core.catalog import ItemRecord, Work
from cross_lora_core.migration import ItemOutcome

__all__ = ["outcome_of"]


def outcome_of(work: Work, record: ItemRecord) -> ItemOutcome:
    """What became of an item, as scripts read it."""
    verdict = work.verdict_of(record.id)
    evidence = verdict.evidence if verdict else {}
    improvement = evidence.get("improvement")
    return ItemOutcome(
        adapter=record.adapter_name,
        target=work.base(record.target_base_id).name,
        status=record.status,
        verdict=record.verdict or "failed",
        reason=record.reason,
        modules_expected=record.modules_expected,
        modules_landed=record.modules_landed,
        output=record.output,
        improvement=improvement["mean"] if improvement else None,
        recovered=evidence.get("recovered"),
    )
