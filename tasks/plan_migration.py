"""Plan a migration and write it into the catalog: what is new, what was done before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from prefect import get_run_logger, runtime, task

from cross_lora_core.catalog import ItemRecord, Work
from cross_lora_core.migration import (
    AdapterRef,
    BaseSimilarity,
    ItemOutcome,
    MigrationRequest,
    Plan,
    PlannedItem,
    TransferSpec,
    find_adapters,
    find_base,
    make_plan,
    register_base,
)
from cross_lora_core.models import BaseModel
from cross_lora_core.settings import load_settings
from tasks.outcomes import outcome_of
from tasks.relate_bases import known_similarity, stored_similarity
from tasks.runtime import TASK_OPTIONS, open_catalog, open_ref, open_stored

__all__ = ["PreparedItem", "PreparedMigration", "plan_migration", "plan_request"]


_READERS = 4
"""Adapters that are read at once, at most: each is in memory whole."""
_ITEMS_AT_ONCE = 200
"""Written in one transaction; other fleets write between two."""


@dataclass(frozen=True)
class PreparedItem:
    """An item with its row; `outcome` is set when nothing is left to do."""

    item_id: int
    planned: PlannedItem
    outcome: ItemOutcome | None


@dataclass(frozen=True)
class PreparedMigration:
    """A plan with its rows."""

    migration_id: int
    plan: Plan
    items: tuple[PreparedItem, ...]


def plan_request(
    request: MigrationRequest, similarity: Callable[[BaseModel, BaseModel], BaseSimilarity] = known_similarity
) -> Plan:
    """Read bases and adapters and decide what will land; nothing is written."""
    shared = open_stored()
    with open_catalog().begin() as work:
        source = find_base(work, request.source, shared)
        targets = [find_base(work, text, shared) for text in request.targets]
        candidates = find_adapters(work, source.name, request.adapters, request.evaluation)
    spec, settings = TransferSpec.from_request(request), load_settings()
    return make_plan(
        source, targets, candidates, spec, settings.group_bytes, similarity, min(settings.workers, _READERS)
    )


@task(name="plan", task_run_name="plan {request.title}", **TASK_OPTIONS)
def plan_migration(request: MigrationRequest) -> PreparedMigration:
    """Plan, and write migration, adapters and items into the catalog; a repeated request finds its own."""
    plan = plan_request(request, stored_similarity)
    bases = [open_ref(ref) for ref in (plan.source, *(target.base for target in plan.targets))]
    with open_catalog().begin() as work:
        source, *_ = [register_base(work, base) for base in bases]
        migration_id = work.begin_migration(
            request_digest=plan.request_digest,
            source_base_id=source.id,
            method=plan.spec.method,
            spec=asdict(plan.spec),
            requested_by=request.requested_by,
            flow_run=str(runtime.flow_run.id or ""),
        )
    items = tuple(
        item
        for first in range(0, len(plan.items), _ITEMS_AT_ONCE)
        for item in _prepare(migration_id, source.id, plan, plan.items[first : first + _ITEMS_AT_ONCE])
    )
    for item in items:
        name, outcome = item.planned.adapter.name, item.outcome
        modules = f"{len(plan.landings_of(item.planned))} modules"
        became = f"{outcome.verdict}: {outcome.reason}" if outcome else modules
        get_run_logger().info("%s → %s: %s", name, item.planned.target.name, became)
    return PreparedMigration(migration_id, plan, items)


def _prepare(
    migration_id: int, source_id: int, plan: Plan, some: Sequence[PlannedItem]
) -> list[PreparedItem]:
    """Items with their rows; the store is asked for outputs while others may write to the catalog."""
    with open_catalog().begin() as work:
        records = [_record(work, migration_id, source_id, plan, planned) for planned in some]
    there = [_still_there(record) for record in records]
    with open_catalog().begin() as work:
        outcomes = [_final_outcome(work, *one) for one in zip(records, there, strict=True)]
    return [
        PreparedItem(record.id, planned, outcome)
        for planned, record, outcome in zip(some, records, outcomes, strict=True)
    ]


def _record(work: Work, migration_id: int, source_id: int, plan: Plan, planned: PlannedItem) -> ItemRecord:
    """An item's row, found or made; a refusal is settled at once."""
    target = work.base_named(planned.target.name)
    assert target is not None
    adapter_id = _register_adapter(work, planned.adapter, source_id) if planned.adapter.digest else None
    record = work.add_item(
        migration_id=migration_id,
        adapter_id=adapter_id,
        adapter_name=planned.adapter.name,
        adapter_location=planned.adapter.location,
        target_base_id=target.id,
        modules_expected=len(plan.landings_of(planned)),
        skipped=[(one.module, one.reason) for one in plan.skipped_of(planned)],
    )
    if planned.refusal is None:
        return record
    work.settle_item(record.id, status="refused", verdict="refused", reason=planned.refusal, evidence={})
    return work.item(record.id)


def _final_outcome(work: Work, record: ItemRecord, there: bool) -> ItemOutcome | None:
    """What became of an item; None if something is left to do."""
    final = record.status == "refused" or (there and not _partly_broken(work, record))
    return outcome_of(work, record) if final else None


def _still_there(record: ItemRecord) -> bool:
    """Whether an item was done before and its output, where it has one, can still be loaded."""
    if record.status != "done" or record.output_sha256 is None:
        return False
    if record.output is None:
        return True
    store = open_stored()
    root = store.folder_url("adapters").removesuffix("adapters")
    found = store.stat(record.output.removeprefix(root) + "/adapter_model.safetensors")
    return found is not None and found.sha256 == record.output_sha256


def _partly_broken(work: Work, record: ItemRecord) -> bool:
    """Whether one of several methods broke when an item was done: the next run tries that one again."""
    verdict = work.verdict_of(record.id)
    return bool(verdict and verdict.evidence.get("broken"))


def _register_adapter(work: Work, ref: AdapterRef, source_id: int) -> int:
    return work.add_adapter(
        name=ref.name,
        digest=ref.digest,
        base_id=source_id,
        location=ref.location,
        origin="ad hoc",
        rank=ref.rank,
        scaling=ref.scaling,
        variant=ref.variant,
        owner=ref.owner,
        evaluation=ref.evaluation,
    ).id
