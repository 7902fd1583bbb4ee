"""Migrate a fleet: plan, factorize both bases once, project every adapter, publish, validate, register.

The flow holds order and failure policy. One adapter that breaks fails alone;
whatever is stored already is not computed again, so the same request run a
second time resumes or finds everything done.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from prefect import flow, runtime
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from cross_lora_core.migration import ItemOutcome, MigrationOutcome, MigrationRequest, Plan
from flows.base_groups import GroupFutures, submit_shared
from flows.fleet_items import ItemRun, announce_items, settle_item, submit_item
from flows.fleet_parts import run_in_parts
from flows.neighbours import with_neighbours
from flows.outages import riding_out, wait_out
from flows.run_labels import label_migration
from flows.task_runners import RUNNER
from tasks.finish_migration import finish_migration
from tasks.plan_migration import PreparedItem, PreparedMigration, plan_migration
from tasks.summary_artifacts import artifact_key

__all__ = ["migrate_fleet"]

_TASK_RUNS_IN_FLIGHT = 400
"""Task runs of items submitted and not settled; a Prefect server that gets thousands at once falls behind."""

_PROGRESS_SECONDS = 5.0
"""Between two changes of the progress artifact."""


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
    return riding_out(lambda: _migrate(request))


def _migrate(request: MigrationRequest) -> MigrationOutcome:
    prepared = plan_migration(request)
    label_migration(prepared.plan)
    settled = _run_items(prepared, [item for item in prepared.items if item.outcome is None])
    outcomes = [item.outcome or settled[item.item_id] for item in prepared.items]
    return finish_migration(prepared, outcomes)


def _run_items(prepared: PreparedMigration, pending: Sequence[PreparedItem]) -> dict[int, ItemOutcome]:
    """What became of every pending item; what several need is submitted once, before all of them."""
    plan = prepared.plan
    settling = _Settling(plan.source.name, len(pending))
    shared = submit_shared(replace(plan, items=tuple(item.planned for item in pending)))
    announce_items(plan, pending)
    try:
        run_in_parts(prepared, pending, lambda part: _run_part(plan, part, shared, settling))
    except Exception:  # whatever comes next must not meet task runs of this attempt
        wait_out(shared.values())
        raise
    return settling.outcomes


def _run_part(plan: Plan, items: Sequence[PreparedItem], shared: GroupFutures, settling: _Settling) -> None:
    """Run some items in the current flow run; only so many task runs are on their way at a time."""
    try:
        for item, neighbours in with_neighbours(plan, items):
            settling.make_room()
            settling.under_way.append(submit_item(plan, item, shared, neighbours))
        settling.settle_all()
    except Exception:
        wait_out(step for run in settling.under_way for step in run.own)
        raise


class _Settling:
    """Items on their way, in order, and the outcomes of those that arrived, by item; it shows progress."""

    def __init__(self, base: str, expected: int) -> None:
        self.under_way: deque[ItemRun] = deque()
        self.outcomes: dict[int, ItemOutcome] = {}
        self._expected = expected
        self._shown = time.monotonic()
        self._progress: Any = create_progress_artifact(
            0.0 if expected else 100.0,
            key=artifact_key("progress", base),
            description=f"{expected} adapters to move from {base}",
        )

    def make_room(self) -> None:
        while sum(len(run.own) for run in self.under_way) >= _TASK_RUNS_IN_FLIGHT:
            self._settle_first()

    def settle_all(self) -> None:
        while self.under_way:
            self._settle_first()

    def _settle_first(self) -> None:
        run = self.under_way[0]
        self.outcomes[run.prepared.item_id] = settle_item(run)
        self._show()
        self.under_way.popleft()

    def _show(self) -> None:
        """Now and then, and at the end: each time costs a connection to the server."""
        now, share = time.monotonic(), len(self.outcomes) / self._expected
        if share == 1 or now - self._shown >= _PROGRESS_SECONDS:
            update_progress_artifact(self._progress, 100.0 * share)
            self._shown = now
