"""Close a migration: its status, its report, its summary in Prefect's UI."""

from __future__ import annotations

from prefect import get_run_logger, task

from cross_lora_core.migration import ItemOutcome, MigrationOutcome
from tasks.plan_migration import PreparedMigration
from tasks.report_migration import gather_report, write_report
from tasks.runtime import TASK_OPTIONS, open_catalog
from tasks.summary_artifacts import create_summary_artifacts

__all__ = ["finish_migration"]


@task(name="finish", task_run_name="finish migration {prepared.migration_id}", **TASK_OPTIONS)
def finish_migration(prepared: PreparedMigration, outcomes: list[ItemOutcome]) -> MigrationOutcome:
    """Write the report page and the artifacts, and mark the migration as ended."""
    broken = any(one.status == "failed" for one in outcomes)
    with open_catalog().begin() as work:
        work.finish_migration(prepared.migration_id, "failed" if broken else "finished")
    report = gather_report(prepared.migration_id)
    path = write_report(report)
    for one in outcomes:
        get_run_logger().info("%s → %s: %s, %s", one.adapter, one.target, one.verdict, one.reason)
    get_run_logger().info("report: %s", path)
    create_summary_artifacts(report, outcomes, path)
    plan = prepared.plan
    return MigrationOutcome(
        prepared.migration_id, plan.source.name, str(plan.spec.method), tuple(outcomes), str(path)
    )
