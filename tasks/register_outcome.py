"""Register an item that broke on the way, with the reason."""

from __future__ import annotations

from prefect import get_run_logger, task

from cross_lora_core.migration import ItemOutcome
from tasks.outcomes import outcome_of
from tasks.plan_migration import PreparedItem
from tasks.runtime import TASK_OPTIONS, open_catalog

__all__ = ["register_failure"]


@task(
    name="register failure",
    task_run_name="register failure of {item.planned.adapter.name}",
    tags=["register"],
    **TASK_OPTIONS,
)
def register_failure(item: PreparedItem, reason: str) -> ItemOutcome:
    """Note that an item failed; the next run of the same request tries it again."""
    with open_catalog().begin() as work:
        work.settle_item(item.item_id, status="failed", verdict="failed", reason=reason, evidence={})
        get_run_logger().error("%s: %s", item.planned.adapter.name, reason)
        return outcome_of(work, work.item(item.item_id))
