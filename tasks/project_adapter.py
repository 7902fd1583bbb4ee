"""Project one adapter's updates onto one layer group of one target base: the fan-out of a migration."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from prefect import task

from cross_lora_core.migration import (
    BaseRef,
    FactorSource,
    GroupFile,
    PlannedItem,
    Projected,
    TransferSpec,
    alignment_key,
    maps_key,
    project_landings,
    projection_key,
    read_alignment,
    read_maps,
    write_projections,
)
from cross_lora_core.models import LayerGroup, Role
from cross_lora_core.storage import StoredObject
from tasks.adapters_in_memory import source_updates
from tasks.device_slots import DEVICE_TAG, device_slot, small_products
from tasks.group_files import factor_reader
from tasks.runtime import TASK_OPTIONS, open_ref, open_stored, put_once

__all__ = ["project_group"]


@task(
    name="project",
    task_run_name="project {item.adapter.name} → {item.target.name} {group}",
    tags=[DEVICE_TAG],
    **TASK_OPTIONS,
)
def project_group(
    source: BaseRef, item: PlannedItem, group: LayerGroup, spec: TransferSpec, factors: FactorSource
) -> StoredObject:
    """Carry an adapter's updates of a layer group to the target (Eq. 7) and store the new factors."""

    def write(path: Path) -> None:
        with device_slot() as device, small_products():
            write_projections(path, _project(source, item, group, spec, factors, device))

    key = projection_key(source, item.target, item.adapter.digest, spec, group.first, group.last)
    return put_once(key, write, durable=False)  # a moment's work, done again sooner than waited for


def _project(
    source: BaseRef,
    item: PlannedItem,
    group: LayerGroup,
    spec: TransferSpec,
    factors: FactorSource,
    device: torch.device,
) -> dict[tuple[int, Role], Projected]:
    bounds = (source, item.target, spec, group.first, group.last)
    pairs = _opened(alignment_key(*bounds), device) if spec.needs.alignment else None
    maps = _opened(maps_key(*bounds), device) if spec.needs.maps else None
    return project_landings(
        item.landings_in(group),
        source_updates(source, item.adapter, device),
        open_ref(item.target).linear,
        factor_reader(factors.source, device),
        factor_reader(factors.target, device),
        None if pairs is None else partial(read_alignment, pairs),
        spec,
        None if maps is None else partial(read_maps, maps),
    )


def _opened(key: str, device: torch.device) -> GroupFile:
    return GroupFile(open_stored().fetch(key), device)
