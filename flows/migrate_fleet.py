"""Migrate a fleet: plan, factorize both bases once, project every adapter, publish, validate, register.

The flow holds order and failure policy. One adapter that breaks fails alone;
whatever is stored already is not computed again, so the same request run a
second time resumes or finds everything done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from prefect import flow, runtime
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from cross_lora_core.migration import ItemOutcome, MigrationOutcome, MigrationRequest, Plan
from flows.base_groups import submit_shared
from flows.fleet_items import ItemRun, announce_items, settle_item, submit_item
from flows.run_labels import label_run
from flows.task_runners import RUNNER
from tasks.finish_migration import finish_migration
from tasks.plan_migration import PreparedItem, plan_migration
from tasks.summary_artifacts import artifact_key

__all__ = ["migrate_fleet", "start_migration"]

_TASK_RUNS_IN_FLIGHT = 400
"""Task runs of items submitted and not settled; a Prefect server that gets thousands at once falls behind."""


def _run_name() -> str:
    return MigrationRequest.model_validate(runtime.flow_run.parameters["request"]).title


@flow(name="migrate-fleet", flow_run_name=_run_name, task_runner=RUNNER, persist_result=False)
def migrate_fleet(request: MigrationRequest) -> MigrationOutcome:
    """Move adapters of one base model to its successors and prove for each what survived.

    Args:
        request: What to move, where to, and how

    Returns:
        One outcome per adapter and target. Items that failed or were refused are among them;
        they do not fail the flow run.
    """
    prepared = plan_migration(request)
    plan = prepared.plan
    label_run(
        base=[plan.source.name], target=[one.base.name for one in plan.targets], method=[plan.spec.method]
    )
    pending = [item for item in prepared.items if item.outcome is None]
    progress: Any = create_progress_artifact(
        0.0, key=artifact_key("progress", plan.source.name), description=f"Of {len(pending)} adapters to move"
    )
    settled: dict[int, ItemOutcome] = {}
    for number, (item, outcome) in enumerate(_run_items(plan, pending), start=1):
        settled[item.item_id] = outcome
        update_progress_artifact(progress, 100.0 * number / len(pending))
    outcomes = [item.outcome or settled[item.item_id] for item in prepared.items]
    return finish_migration(prepared, outcomes)


def start_migration(request: MigrationRequest) -> MigrationOutcome:
    """Run the flow here, with the task runner of the settings."""
    return migrate_fleet(request)


def _run_items(plan: Plan, pending: Sequence[PreparedItem]) -> Iterator[tuple[PreparedItem, ItemOutcome]]:
    """Every pending item with what became of it, in order; only so many are on their way at a time."""
    shared = submit_shared(plan, {item.planned.target.digest for item in pending})
    announce_items(plan, pending)
    under_way: deque[ItemRun] = deque()
    for item in pending:
        while sum(len(run.own) for run in under_way) >= _TASK_RUNS_IN_FLIGHT:
            yield _settled(under_way.popleft())
        under_way.append(submit_item(plan, item, shared))
    yield from map(_settled, under_way)


def _settled(run: ItemRun) -> tuple[PreparedItem, ItemOutcome]:
    return run.prepared, settle_item(run)
