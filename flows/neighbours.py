"""Which items of a fleet are projected together: a few that follow each other, to one target."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from cross_lora_core.migration import Plan, PlannedItem
from cross_lora_core.settings import load_settings
from tasks.adapters_in_memory import ADAPTERS_TOGETHER
from tasks.plan_migration import PreparedItem

__all__ = ["with_neighbours"]


def with_neighbours(
    plan: Plan, items: Sequence[PreparedItem]
) -> Iterator[tuple[PreparedItem, tuple[PlannedItem, ...] | None]]:
    """Each item in order, and those after it that its projections may take along: none for the last of a few.

    None instead where nobody takes anybody along: where task runs of one process are not the ones that would
    otherwise do them, or where a target has fewer layer groups than there are workers, which would wait for
    each other.
    """
    beside = _beside(plan, items) if load_settings().task_runner == "threads" else {}
    for item in items:
        yield item, beside.get(item.item_id)


def _beside(plan: Plan, items: Sequence[PreparedItem]) -> dict[int, tuple[PlannedItem, ...]]:
    by_target: dict[str, list[PreparedItem]] = defaultdict(list)
    workers = load_settings().workers
    for item in items:
        if len(plan.target_of(item.planned).groups) >= workers:
            by_target[item.planned.target.digest].append(item)
    found = {}
    for row in by_target.values():
        for start in range(0, len(row), ADAPTERS_TOGETHER):
            few = row[start : start + ADAPTERS_TOGETHER]
            for number, item in enumerate(few, start=1):
                found[item.item_id] = tuple(one.planned for one in few[number:])
    return found
