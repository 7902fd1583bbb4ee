"""A fleet too large for one flow run: child flow runs of bounded size, one after another.

A flow run of tens of thousands of task runs is slow to show and to query, and its process keeps something of
each. The parent plans, has done once what all share, and keeps progress, outcomes and report; a part does
some of the items and leaves nothing behind. It runs in the parent's process, so it is handed its items as
they are: what Prefect stores of a part are numbers and names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prefect import flow, runtime
from prefect.context import FlowRunContext
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from cross_lora_core.migration import Plan
from flows.fleet_items import count_task_runs
from flows.interrupts import heed_interrupts
from flows.records import await_records
from flows.run_labels import label_migration
from flows.task_runners import RUNNER, BorrowedRunner
from tasks.plan_migration import PreparedItem, PreparedMigration

__all__ = ["PART_FLOW", "run_in_parts"]

PART_FLOW = "migrate-fleet-part"

_TASK_RUNS_OF_A_PART = 2_000
"""Task runs of items in one flow run; an item that needs more by itself is a part of its own."""

_Part = Sequence[PreparedItem]


def run_in_parts(prepared: PreparedMigration, pending: _Part, run_part: Callable[[_Part], None]) -> None:
    """Run items in this flow run if they are few, or else in one child flow run after another.

    Args:
        prepared: the migration that the items are of.
        pending: what is left to do.
        run_part: runs some of them in the current flow run, and returns when all are settled.
    """
    parts = _parts_of(prepared.plan, pending)
    if len(parts) < 2:
        run_part(pending)
        return
    for number, items in enumerate(parts, start=1):
        _run_child(prepared, items, run_part, f"{runtime.flow_run.name}, part {number} of {len(parts)}")
        heed_interrupts()


def _parts_of(plan: Plan, pending: _Part) -> list[list[PreparedItem]]:
    """The items in order, cut where a part would get too large."""
    parts: list[list[PreparedItem]] = []
    held = _TASK_RUNS_OF_A_PART
    for item in pending:
        count = count_task_runs(plan, item)
        if held + count > _TASK_RUNS_OF_A_PART:
            parts.append([])
            held = 0
        parts[-1].append(item)
        held += count
    return parts


def _run_child(
    prepared: PreparedMigration, some: _Part, run_part: Callable[[_Part], None], name: str
) -> None:
    @flow(name=PART_FLOW, flow_run_name="{name}", task_runner=_runner(), persist_result=False)
    def migrate_part(name: str, migration: int, items: list[int], first: str, last: str) -> None:  # noqa: ARG001
        """Some adapters of a fleet; migrate-fleet starts it, and counts and reports them with all others."""
        label_migration(prepared.plan)
        run_part(some)
        await_records(sum(count_task_runs(prepared.plan, item) for item in some))

    adapters = [item.planned.adapter.name for item in some]
    ids = [item.item_id for item in some]
    migrate_part(name, prepared.migration_id, ids, adapters[0], adapters[-1])


def _runner() -> TaskRunner[Any]:
    """Threads of its own; on a cluster the connection that the parent has."""
    parent = FlowRunContext.get()
    assert parent is not None
    return (
        RUNNER if isinstance(parent.task_runner, ThreadPoolTaskRunner) else BorrowedRunner(parent.task_runner)
    )
