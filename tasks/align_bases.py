"""Align one layer group of a pair of bases; done once per pair and spec, shared by every adapter."""

from __future__ import annotations

from pathlib import Path

import torch
from prefect import task
from torch import Tensor

from cross_lora_core.migration import (
    BaseRef,
    FactorSource,
    PlannedTarget,
    TransferSpec,
    align_landings,
    alignment_key,
    anchor_rows,
    write_alignments,
)
from cross_lora_core.models import BaseModel, LayerGroup
from cross_lora_core.storage import StoredObject
from tasks.device_slots import DEVICE_TAG, device_slot
from tasks.group_files import factor_reader
from tasks.runtime import TASK_OPTIONS, open_ref
from tasks.sharing import put_shared

__all__ = ["align_group"]


@task(
    name="align",
    task_run_name="align {source.name} → {target.base.name} {group}",
    tags=[DEVICE_TAG],
    **TASK_OPTIONS,
)
def align_group(
    source: BaseRef, target: PlannedTarget, group: LayerGroup, spec: TransferSpec, factors: FactorSource
) -> StoredObject:
    """Compute and store the maps between the singular bases of every pair of mapped modules."""

    def write(path: Path) -> None:
        bases = open_ref(source), open_ref(target.base)
        landings = target.shared_landings(group, *bases)
        with device_slot() as device:
            ours, theirs = factor_reader(factors.source, device), factor_reader(factors.target, device)
            assert ours is not None
            assert theirs is not None
            anchor = _anchor(bases, device) if spec.anchor == "tokens" else None
            write_alignments(path, align_landings(landings, ours, theirs, anchor))

    stored, _ = put_shared(alignment_key(source, target.base, spec, group.first, group.last), write)
    return stored


def _anchor(bases: tuple[BaseModel, BaseModel], device: torch.device) -> tuple[Tensor, Tensor]:
    ours, theirs = anchor_rows(*bases)
    return ours.to(device), theirs.to(device)
