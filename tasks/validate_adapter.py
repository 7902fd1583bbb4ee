"""Validate a published adapter on its real target, judge it, and register what was found."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from prefect import task

from cross_lora_core.adapters import (
    local_adapter,
    verify_adapter,
)
from cross_lora_core.evaluation import (
    Decision,
    EvaluationRow,
    Evidence,
    Losses,
    check_function,
    decide,
    read_rows,
)
from cross_lora_core.migration import ItemOutcome, Method, Plan, PlannedItem, content_digest
from cross_lora_core.settings import Settings, load_settings
from tasks.device_slots import DEVICE_TAG, device_slot
from tasks.evaluate_adapter import base_in_memory, measured_losses
from tasks.outcomes import outcome_of
from tasks.plan_migration import PreparedItem
from tasks.publish_adapter import Published, projected_modules
from tasks.runtime import TASK_OPTIONS, open_catalog, open_ref, open_stored
from tasks.write_controls import random_control, write_control, zero_control

__all__ = ["gather_evidence", "register_verdict", "validate_adapter"]


@task(
    name="validate",
    task_run_name="validate {item.planned.adapter.name} on {item.planned.target.name}",
    tags=[DEVICE_TAG],
    **TASK_OPTIONS,
)
def validate_adapter(plan: Plan, item: PreparedItem, published: Published) -> ItemOutcome:
    """Structure, function and losses against the controls; the verdict goes into the catalog."""
    settings = load_settings()
    evidence = gather_evidence(plan, item.planned, published)
    decision = decide(
        evidence,
        confidence=settings.confidence,
        minimum_rows=settings.minimum_rows,
        seed=settings.seed,
    )
    return register_verdict(plan, item, published, evidence, decision)


def gather_evidence(plan: Plan, item: PlannedItem, published: Published) -> Evidence:
    """Everything that is measured of a published adapter: structure, function, losses beside the controls."""
    with device_slot(), tempfile.TemporaryDirectory(prefix="cross-lora-") as scratch:
        folder = _local_copy(published, Path(scratch) / "migrated")
        return _gather(plan, item, folder, load_settings())


def _local_copy(published: Published, folder: Path) -> Path:
    """The published files as a folder PEFT can read, each verified."""
    store = open_stored()
    folder.mkdir()
    for key in list(store.list(published.prefix + "/")):
        (folder / key.rsplit("/", 1)[1]).symlink_to(store.fetch(key))
    return folder


def _gather(plan: Plan, item: PlannedItem, folder: Path, settings: Settings) -> Evidence:
    structure = verify_adapter(folder, open_ref(item.target))
    same_base = plan.source.digest == item.target.digest
    copied = plan.spec.method is Method.COPY
    if structure.problems:
        return Evidence(structure.problems, None, None, copied, same_base)
    with base_in_memory(item.target, settings) as loaded:
        check = check_function(loaded, folder)
    telling = check.changed and check.landing.complete
    rows = read_rows(item.adapter.evaluation) if item.adapter.evaluation and telling else ()
    losses = _losses(plan, item, folder, rows, settings) if rows else None
    return Evidence((), check, losses, copied, same_base)


def _losses(
    plan: Plan, item: PlannedItem, folder: Path, rows: tuple[EvaluationRow, ...], settings: Settings
) -> Losses:
    """Every labelled measurement, each taken from the catalog if it was made before."""
    random_folder = folder.parent / "random"
    zero_folder = folder.parent / "zero"
    target, dtype = open_ref(item.target), getattr(torch, plan.spec.output_dtype)
    write_control(folder, target, dtype, random_folder, random_control(settings.seed))
    write_control(folder, target, dtype, zero_folder, zero_control)
    original = local_adapter(item.adapter.location, item.adapter.digest)
    return Losses(
        target=measured_losses(item.target, None, rows, settings),
        zero=measured_losses(item.target, zero_folder, rows, settings),
        random=measured_losses(item.target, random_folder, rows, settings),
        migrated=measured_losses(item.target, folder, rows, settings),
        source=measured_losses(plan.source, None, rows, settings),
        source_adapter=measured_losses(plan.source, original, rows, settings),
    )


def register_verdict(
    plan: Plan,
    item: PreparedItem,
    published: Published,
    evidence: Evidence,
    decision: Decision,
    *,
    usable: bool = True,
    ladder: Mapping[str, Any] | None = None,
) -> ItemOutcome:
    """Settle an item with its verdict, measures and evidence.

    Args:
        plan: of the transfer that made the output.
        item: the item.
        published: its output.
        evidence: on that output.
        decision: the verdict on it.
        usable: whether the output may be kept as the item's.
        ladder: what was tried before this was chosen.
    """
    measures = [dict(vars(one.measure)) for one in projected_modules(plan, item.planned).values()]
    landed = evidence.function.landing.landed if evidence.function else 0
    failed = decision.verdict == "failed"
    with open_catalog().begin() as work:
        work.add_measures(item.item_id, measures)
        work.settle_item(
            item.item_id,
            status="failed" if failed else "done",
            verdict=decision.verdict,
            reason=decision.reason,
            evidence=_evidence(plan, item.planned, published, evidence, decision) | dict(ladder or {}),
            modules_landed=landed,
            output=published.url if usable and not failed else None,
            output_sha256=published.sha256,
            method=plan.spec.method,
            modules_expected=len(plan.landings_of(item.planned)),
            skipped=[(one.module, one.reason) for one in plan.skipped_of(item.planned)],
        )
        return outcome_of(work, work.item(item.item_id))


def _evidence(
    plan: Plan, item: PlannedItem, published: Published, evidence: Evidence, decision: Decision
) -> dict[str, Any]:
    return decision.as_dict() | {
        "method": str(plan.spec.method),
        "function": asdict(evidence.function) if evidence.function else None,
        "problems": list(evidence.problems),
        "lineage": {
            "source base": f"{plan.source.name} ({plan.source.digest[:12]})",
            "target base": f"{item.target.name} ({item.target.digest[:12]})",
            "adapter": f"{item.adapter.location} ({item.adapter.digest[:12]})",
            "evaluation file": item.adapter.evaluation or "none",
            "transfer": content_digest(asdict(plan.spec))[:12],
            "output": f"{published.prefix} ({published.sha256[:12]}), rank {published.rank}",
        },
    }
