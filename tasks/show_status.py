"""What became of a migration, from the catalog."""

from __future__ import annotations

from typing import Any

from cross_lora_core.errors import RecordNotFound
from cross_lora_core.migration import MigrationOutcome
from cross_lora_core.settings import load_settings
from tasks.outcomes import outcome_of
from tasks.runtime import open_catalog

__all__ = ["chosen_migration", "migration_status"]


def chosen_migration(migration_id: int | None) -> int:
    """The given migration, or the latest.

    Raises:
        RecordNotFound: there is none.
    """
    with open_catalog().begin() as work:
        found = work.migration(migration_id) if migration_id is not None else work.latest_migration()
    if found is None:
        remedy = "Start one with `cross-lora migrate`."
        raise RecordNotFound("a migration", "none yet", load_settings().catalog_url, remedy)
    return found.id


def migration_status(migration_id: int | None) -> tuple[MigrationOutcome, dict[str, Any]]:
    """A migration's outcome so far, its state, and the current promotions of its adapters."""
    chosen = chosen_migration(migration_id)
    with open_catalog().begin() as work:
        migration = work.migration(chosen)
        items = work.items_of(chosen)
        current = [work.current_promotion(one.target_base_id, one.adapter_name) for one in items]
        promoted = [
            {
                "adapter": one.adapter_name,
                "target": work.base(one.target_base_id).name,
                "item": one.item_id,
                "actor": one.actor,
                "reason": one.reason,
            }
            for one in current
            if one is not None
        ]
        outcome = MigrationOutcome(
            chosen,
            work.base(migration.source_base_id).name,
            migration.method,
            tuple(outcome_of(work, one) for one in items),
            str(load_settings().reports / f"migration-{chosen}.html"),
        )
    state = {
        "status": migration.status,
        "started_at": migration.started_at,
        "finished_at": migration.finished_at,
    }
    return outcome, state | {"promoted": promoted}
