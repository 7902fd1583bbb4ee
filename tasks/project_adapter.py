"""Project one adapter's updates onto one layer group of one target base: the fan-out of a migration."""

from __future__ import annotations

from pathlib import Path

import torch
from prefect import task

from cross_lora_core.adapters import updates_by_role
from cross_lora_core.algebra import LoraFactors
from cross_lora_core.migration import (
    BaseRef,
    FactorSource,
    GroupFile,
    PlannedItem,
    Projected,
    TransferSpec,
    alignment_key,
    project_landings,
    projection_key,
    read_alignment,
    write_projections,
)
from cross_lora_core.models import LayerGroup, Role
from cross_lora_core.storage import StoredObject
from tasks.device_slots import DEVICE_TAG, device_slot
from tasks.group_files import factor_reader
from tasks.runtime import TASK_OPTIONS, open_ref, open_stored, put_once, read_ref

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
        with device_slot() as device:
            write_projections(path, _project(source, item, group, spec, factors, device))

    return put_once(
        projection_key(source, item.target, item.adapter.digest, spec, group.first, group.last), write
    )


def _project(
    source: BaseRef,
    item: PlannedItem,
    group: LayerGroup,
    spec: TransferSpec,
    factors: FactorSource,
    device: torch.device,
) -> dict[tuple[int, Role], Projected]:
    maps = None
    if spec.needs.alignment:
        key = alignment_key(source, item.target, spec, group.first, group.last)
        maps = GroupFile(open_stored().fetch(key), device)
    return project_landings(
        item.landings_in(group),
        _source_updates(source, item, device),
        open_ref(item.target).linear,
        factor_reader(factors.source, device),
        factor_reader(factors.target, device),
        None if maps is None else (lambda layer, role: read_alignment(maps, layer, role)),
        spec,
    )


def _source_updates(
    source: BaseRef, item: PlannedItem, device: torch.device
) -> dict[tuple[int, Role], LoraFactors]:
    updates = updates_by_role(read_ref(item.adapter), open_ref(source)).updates
    return {
        key: LoraFactors(update.lora_A.to(device), update.lora_B.to(device), update.scaling)
        for key, update in updates.items()
    }
