"""How a flow run is tagged in Prefect's UI, so that it is found by base, adapter and method."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import runtime
from prefect.client.orchestration import get_client

from cross_lora_core.migration import Plan

__all__ = ["label_migration", "label_run"]


def label_migration(plan: Plan) -> None:
    """Add a migration's bases and method to the current flow run."""
    targets = [one.base.name for one in plan.targets]
    label_run(base=[plan.source.name], target=targets, method=[plan.spec.method])


def label_run(**labels: Sequence[str]) -> None:
    """Add tags `kind:name` to the current flow run."""
    added = [f"{kind}:{name}" for kind, names in labels.items() for name in names]
    with get_client(sync_client=True) as client:
        tags = client.read_flow_run(runtime.flow_run.id).tags
        client.update_flow_run(runtime.flow_run.id, tags=list(dict.fromkeys([*tags, *added])))
