"""Gather a migration's report from the catalog and write it as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cross_lora_core.catalog import ItemRecord, Work
from cross_lora_core.reporting import CandidateReport, Interval, ItemReport, MigrationReport, render_page
from cross_lora_core.settings import load_settings
from tasks.runtime import open_catalog

__all__ = ["gather_report", "write_report"]


_DETAILED_ITEMS = 100
"""A page of more items has no plots and no table per module: it would take hours to draw and not open."""


def gather_report(migration_id: int, *, whole: bool = False) -> MigrationReport:
    """What the catalog knows of a migration; of a large one without the measures of every module.

    Args:
        migration_id: of the migration.
        whole: with them, however large it is.

    Raises:
        RecordNotFound: there is no such migration.
    """
    with open_catalog().begin() as work:
        migration = work.migration(migration_id)
        records = work.items_of(migration_id)
        detailed = whole or len(records) <= _DETAILED_ITEMS
        items = tuple(_item(work, one, detailed=detailed) for one in records)
        return MigrationReport(
            migration=str(migration_id),
            source=work.base(migration.source_base_id).name,
            targets=tuple(dict.fromkeys(one.target for one in items)),
            method=migration.method,
            settings=dict(migration.spec) | {"request digest": migration.request_digest},
            started=migration.started_at,
            finished=migration.finished_at,
            items=items,
            detailed=detailed,
        )


def _item(work: Work, record: ItemRecord, *, detailed: bool) -> ItemReport:
    verdict = work.verdict_of(record.id)
    evidence = verdict.evidence if verdict else {}
    return ItemReport(
        adapter=record.adapter_name,
        target=work.base(record.target_base_id).name,
        status=record.status,
        verdict=record.verdict or "failed",
        reason=record.reason or "not finished yet; run the same migration again",
        modules_expected=record.modules_expected,
        modules_landed=record.modules_landed,
        output=record.output,
        rows=evidence.get("rows") or 0,
        losses=evidence.get("means") or {},
        improvement=_interval(evidence.get("improvement")),
        over_random=_interval(evidence.get("over_random")),
        recovered=evidence.get("recovered"),
        modules=tuple(work.measures_of(record.id)) if detailed else (),
        skipped=tuple((module, reason) for module, reason in record.skipped),
        lineage=evidence.get("lineage") or {},
        method=record.method,
        candidates=tuple(_candidate(one) for one in evidence.get("candidates") or ()),
        left_out=tuple((one["method"], one["reason"]) for one in evidence.get("left_out") or ()),
    )


def _candidate(figures: dict[str, Any]) -> CandidateReport:
    return CandidateReport(
        method=figures["method"],
        verdict=figures["verdict"],
        reason=figures["reason"],
        losses=figures.get("means") or {},
        improvement=_interval(figures.get("improvement")),
        recovered=figures.get("recovered"),
    )


def _interval(value: dict[str, Any] | None) -> Interval | None:
    return Interval(**value) if value else None


def write_report(report: MigrationReport, path: Path | None = None) -> Path:
    """Write the page, by default into the reports folder of the settings; returns where it is."""
    target = path or load_settings().reports / f"migration-{report.migration}.html"
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_suffix(".partial")
    aside.write_text(render_page(report), encoding="utf-8")
    return aside.replace(target)
