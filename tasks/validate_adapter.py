"""Validate a published adapter on its real target, judge it, and register what was found."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from prefect import task

from cross_lora_core import algebra
from cross_lora_core.adapters import local_adapter, read_adapter, verify_adapter, write_adapter
from cross_lora_core.algebra import LoraFactors
from cross_lora_core.evaluation import (
    Decision,
    EvaluationRow,
    Evidence,
    LoadedBase,
    Losses,
    check_function,
    dataset_digest,
    decide,
    loaded_base,
    read_rows,
    row_losses,
)
from cross_lora_core.migration import BaseRef, ItemOutcome, Method, Plan, PlannedItem, content_digest
from cross_lora_core.models import Role, local_base
from cross_lora_core.settings import Settings, load_settings
from tasks.device_slots import DEVICE_TAG, device_slot, torch_device
from tasks.outcomes import outcome_of
from tasks.plan_migration import PreparedItem
from tasks.publish_adapter import Published, projected_modules
from tasks.runtime import TASK_OPTIONS, open_catalog, open_ref, open_stored

__all__ = ["validate_adapter"]

_Control = Callable[[LoraFactors, int, int], LoraFactors]


@task(
    name="validate",
    task_run_name="validate {item.planned.adapter.name} on {item.planned.target.name}",
    tags=[DEVICE_TAG],
    **TASK_OPTIONS,
)
def validate_adapter(plan: Plan, item: PreparedItem, published: Published) -> ItemOutcome:
    """Structure, function and losses against the controls; the verdict goes into the catalog."""
    settings = load_settings()
    with device_slot(), tempfile.TemporaryDirectory(prefix="cross-lora-") as scratch:
        folder = _local_copy(published, Path(scratch) / "migrated")
        evidence = _gather(plan, item.planned, folder, settings)
    decision = decide(
        evidence,
        confidence=settings.confidence,
        minimum_rows=settings.minimum_rows,
        seed=settings.seed,
    )
    return _register(plan, item, published, evidence, decision)


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
    with _loaded(item.target, settings) as loaded:
        check = check_function(loaded, folder)
    rows = read_rows(item.adapter.evaluation) if item.adapter.evaluation and check.changed else ()
    losses = _losses(plan, item, folder, rows, settings) if rows else None
    return Evidence((), check, losses, copied, same_base)


def _loaded(base: BaseRef, settings: Settings) -> AbstractContextManager[LoadedBase]:
    folder = local_base(base.location, base.digest)
    return loaded_base(folder, base.digest, getattr(torch, settings.evaluation_dtype), torch_device())


def _losses(
    plan: Plan, item: PlannedItem, folder: Path, rows: tuple[EvaluationRow, ...], settings: Settings
) -> Losses:
    """Every labelled measurement, each taken from the catalog if it was made before."""
    random_folder = folder.parent / "random"
    zero_folder = folder.parent / "zero"
    seeds = iter(range(settings.seed * 1_000_003, settings.seed * 1_000_003 + 10**9))
    _write_control(
        plan, item, random_folder, lambda one, d_out, d_in: algebra.random_like(one, d_out, d_in, next(seeds))
    )
    _write_control(plan, item, zero_folder, algebra.zero)
    original = local_adapter(item.adapter.location, item.adapter.digest)
    return Losses(
        target=_measured(item.target, None, rows, settings),
        zero=_measured(item.target, zero_folder, rows, settings),
        random=_measured(item.target, random_folder, rows, settings),
        migrated=_measured(item.target, folder, rows, settings),
        source=_measured(plan.source, None, rows, settings),
        source_adapter=_measured(plan.source, original, rows, settings),
    )


def _write_control(plan: Plan, item: PlannedItem, folder: Path, control: _Control) -> None:
    """A control adapter with the modules, ranks and (random) norms of the migrated one; never published."""
    target = open_ref(item.target)
    updates: dict[tuple[int, Role], LoraFactors] = {}
    for (layer, role), one in sorted(projected_modules(plan, item).items()):
        linear = target.linear(layer, role)
        updates[layer, role] = control(one.update, linear.d_out, linear.d_in)
    write_adapter(
        folder, target, updates, rank=plan.spec.output_rank, dtype=getattr(torch, plan.spec.output_dtype)
    )


def _measured(
    base: BaseRef, adapter: Path | None, rows: tuple[EvaluationRow, ...], settings: Settings
) -> list[float]:
    digest = read_adapter(adapter).digest if adapter else ""
    key = (base.digest, digest, dataset_digest(rows), settings.evaluation_dtype)
    with open_catalog().begin() as work:
        found = work.evaluation(*key)
    if found is not None:
        return found.losses
    with _loaded(base, settings) as loaded, loaded.with_adapter(adapter):
        losses = row_losses(loaded, rows)
    with open_catalog().begin() as work:
        work.add_evaluation(*key, losses)
    return losses


def _register(
    plan: Plan, item: PreparedItem, published: Published, evidence: Evidence, decision: Decision
) -> ItemOutcome:
    measures = [asdict(one.measure) for one in projected_modules(plan, item.planned).values()]
    landed = evidence.function.landing.landed if evidence.function else 0
    failed = decision.verdict == "failed"
    with open_catalog().begin() as work:
        work.add_measures(item.item_id, measures)
        work.settle_item(
            item.item_id,
            status="failed" if failed else "done",
            verdict=decision.verdict,
            reason=decision.reason,
            evidence=_evidence(plan, item.planned, published, evidence, decision),
            modules_landed=landed,
            output=None if failed else published.url,
            output_sha256=published.sha256,
        )
        return outcome_of(work, work.item(item.item_id))


def _evidence(
    plan: Plan, item: PlannedItem, published: Published, evidence: Evidence, decision: Decision
) -> dict[str, Any]:
    return decision.as_dict() | {
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
