"""Describe a plan and its cost in plain values, for `cross-lora plan`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from cross_lora_core.migration import MigrationRequest, Plan, PlannedItem, estimate_plan, item_output_bytes
from tasks.plan_migration import plan_request
from tasks.runtime import open_ref, open_stored

__all__ = ["describe_plan"]


def describe_plan(request: MigrationRequest) -> dict[str, Any]:
    """What a migration would do and cost; no item is registered and nothing is computed."""
    plan = plan_request(request)
    targets = {one.base.digest: open_ref(one.base) for one in plan.targets}
    estimate = estimate_plan(plan, open_ref(plan.source), targets, open_stored().exists)
    return {
        "source": plan.source.name,
        "targets": [one.base.name for one in plan.targets],
        "spec": asdict(plan.spec),
        "items": [
            _describe(
                plan, one, 0 if one.refusal else item_output_bytes(one, targets[one.target.digest], plan)
            )
            for one in plan.items
        ],
        "estimate": asdict(estimate),
    }


def _describe(plan: Plan, item: PlannedItem, output_bytes: int) -> dict[str, Any]:
    reasons = Counter(one.reason.split(" is mapped to")[0] for one in plan.skipped_of(item))
    return {
        "adapter": item.adapter.name,
        "location": item.adapter.location,
        "target": item.target.name,
        "modules": len(plan.landings_of(item)),
        "refusal": item.refusal,
        "rungs": [str(one.method) for one in item.ladder.rungs],
        "left_out": [asdict(one) for one in item.ladder.left_out],
        "similarity": asdict(item.ladder.similarity) if item.ladder.similarity else None,
        "evaluation": item.adapter.evaluation,
        "output_bytes": output_bytes,
        "skipped": [asdict(one) for one in item.skipped],
        "skipped_summary": [f"{count} × {reason}" for reason, count in reasons.items()],
    }
