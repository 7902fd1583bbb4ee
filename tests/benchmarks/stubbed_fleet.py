"""A fleet of any size whose task runs keep their Prefect shape and their rows, and touch no weights.

The functions of the tasks that read, compute or write tensors are replaced; planning, names, tags, retries,
edges, parameters, the registration of each verdict with a measure per module, and the report are the product's.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import tasks.validate_adapter
from cross_lora_core.evaluation import Decision, Evidence, FunctionCheck, Landing, Verdict
from cross_lora_core.migration import ItemOutcome, ModuleMeasure, Plan, PlannedItem, Projected, adapter_prefix
from cross_lora_core.models import open_base
from cross_lora_core.models.layers import factor_bytes
from cross_lora_core.storage import StoredObject
from tasks.align_bases import align_group
from tasks.factorize_base import factorize_group
from tasks.project_adapter import project_group
from tasks.publish_adapter import Published, publish_adapter
from tasks.validate_adapter import register_verdict, validate_adapter
from tests.support.fleets import make_adapter
from tests.support.pico_models import build_pico

RANK = 8


def build_fleet(root: Path, *, adapters: int, layers: int) -> None:
    """Two bases and a folder of adapters on the first, all linked to one file of all seven roles."""
    for seed, name in enumerate(("old-base", "new-base")):
        build_pico("llama", root / name, layers=layers, seed=seed)
    first = make_adapter(root / "old-base", root / "adapter", target_modules="all-linear", r=2)
    for number in range(adapters):
        folder = root / "adapters" / f"adapter-{number:05d}"
        folder.mkdir(parents=True)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            os.link(first / name, folder / name)


def bytes_for_groups(base: Path, groups: int) -> int:
    """The setting GROUP_BYTES that cuts a base of equal layers into so many groups."""
    opened = open_base(base)
    per_group = -(-opened.layers // groups)
    return 2 * per_group * factor_bytes(opened, 0, RANK)


def stub_compute(*, rows: bool) -> None:
    """Replace, in this process, what the tasks of method `cross-lora` do with weights.

    Args:
        rows: register each verdict in the catalog, with a measure per module, as the product does.
    """
    factorize_group.fn = _factorized
    align_group.fn = _aligned
    project_group.fn = _projected
    publish_adapter.fn = _published
    validate_adapter.fn = _validated if rows else _judged
    tasks.validate_adapter.projected_modules = _measures


def _factorized(base: Any, group: Any, spec: Any) -> StoredObject:
    return StoredObject("stubbed", "0" * 64, 0)


def _aligned(source: Any, target: Any, group: Any, spec: Any, factors: Any) -> StoredObject:
    return StoredObject("stubbed", "0" * 64, 0)


def _projected(
    source: Any, item: PlannedItem, group: Any, spec: Any, factors: Any, neighbours: Any
) -> StoredObject:
    return StoredObject(f"stubbed/{item.adapter.name}", "0" * 64, 0)


def _published(plan: Plan, item: PlannedItem) -> Published:
    prefix = adapter_prefix(plan.source, item.target, item.adapter.name, item.adapter.digest, plan.spec)
    return Published(prefix, f"file:///stubbed/{prefix}", "0" * 64, RANK)


def _validated(plan: Plan, item: Any, published: Published) -> Any:
    landed = len(plan.landings_of(item.planned))
    evidence = Evidence((), FunctionCheck(Landing(landed, landed, 0), 0.1, 0.1), None)
    decision = Decision(Verdict.unverified, "the compute is stubbed")
    return register_verdict(plan, item, published, evidence, decision)


def _judged(plan: Plan, item: Any, published: Published) -> ItemOutcome:
    name, target, landed = item.planned.adapter.name, item.planned.target.name, len(item.planned.landings)
    return ItemOutcome(
        name, target, "done", "unverified", "the compute is stubbed", landed, landed, published.url
    )


def _measures(plan: Plan, item: PlannedItem) -> dict[Any, Projected]:
    return {
        (one.target_layer, one.role): Projected(
            None,  # no tensors
            ModuleMeasure(one.target_layer, one.role, one.source_layer, 0.9, 0.9, 0.5, 1.0, 0.5, 0.01),
        )
        for one in plan.landings_of(item)
    }
