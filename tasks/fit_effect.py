"""Fit one layer group of a target so that it changes as an adapter changes its source: method `effect`."""

from __future__ import annotations

from pathlib import Path

import torch
from prefect import get_run_logger, task

from cross_lora_core.adapters import local_adapter
from cross_lora_core.algebra import LoraFactors
from cross_lora_core.fitting import EffectFit, EffectOptions, EffectSide, fit_effect
from cross_lora_core.migration import (
    Plan,
    PlannedItem,
    projection_key,
    read_projections,
    read_streams,
    streams_key,
    write_projections,
)
from cross_lora_core.models import LayerGroup, Role
from cross_lora_core.storage import StoredObject
from tasks.bases_in_memory import bases_in_memory
from tasks.device_slots import DEVICE_TAG, device_slot
from tasks.runtime import TASK_OPTIONS, open_ref, open_stored, put_once
from tasks.sample_probes import read_probes

__all__ = ["fit_group"]


@task(
    name="fit",
    task_run_name="fit {item.adapter.name} → {item.target.name} {group}",
    tags=[DEVICE_TAG],
    **TASK_OPTIONS,
)
def fit_group(plan: Plan, item: PlannedItem, group: LayerGroup) -> StoredObject:
    """Fit and store the updates of a layer group; those of every group below must be there."""

    def write(path: Path) -> None:
        with device_slot() as device:
            fit = _fit(plan, item, group, device)
        shares = [one.measure.explained or 0.0 for one in fit.projected.values()]
        get_run_logger().info(
            "%d positions; of the wanted change %.0f %% is explained on held-out probes",
            fit.positions,
            100 * sum(shares) / len(shares),
        )
        write_projections(path, fit.projected)

    return put_once(_key(plan, item, group), write)


def _key(plan: Plan, item: PlannedItem, group: LayerGroup) -> str:
    return projection_key(plan.source, item.target, item.adapter.digest, plan.spec, group.first, group.last)


def _streams_key(plan: Plan, item: PlannedItem, group: LayerGroup) -> str:
    return streams_key(plan.source, item.target, plan.spec.streams, group.first, group.last)


def _fit(plan: Plan, item: PlannedItem, group: LayerGroup, device: torch.device) -> EffectFit:
    with bases_in_memory(plan.source, item.target, device=device) as (ours, theirs):
        return fit_effect(
            EffectSide(open_ref(plan.source), ours),
            EffectSide(open_ref(item.target), theirs),
            local_adapter(item.adapter.location, item.adapter.digest),
            read_probes(plan.source, item.adapter, plan.spec.probes),
            plan.landings_in(item, group),
            read_streams(open_stored().fetch(_streams_key(plan, item, group)), device),
            _below(plan, item, group),
            EffectOptions(rank=plan.spec.fit_rank),
        )


def _below(plan: Plan, item: PlannedItem, group: LayerGroup) -> dict[tuple[int, Role], LoraFactors]:
    """Updates of every layer below the group."""
    store = open_stored()
    found = [
        read_projections(store.fetch(_key(plan, item, one)))
        for one in plan.target_of(item).groups
        if one.index < group.index
    ]
    return {key: projected.update for part in found for key, projected in part.items()}
