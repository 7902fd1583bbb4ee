"""Compare the residual streams of a pair of bases, a layer group at a time, for every adapter to use."""

from __future__ import annotations

from pathlib import Path

import torch
from prefect import task

from cross_lora_core.algebra import CentredMoments
from cross_lora_core.fitting import EffectSide, stream_moments
from cross_lora_core.migration import (
    BaseRef,
    PlannedTarget,
    TransferSpec,
    effect_landings,
    streams_key,
    write_streams,
)
from cross_lora_core.models import LayerGroup
from cross_lora_core.storage import StoredObject
from tasks.bases_in_memory import bases_in_memory
from tasks.device_slots import DEVICE_TAG, device_slot
from tasks.runtime import TASK_OPTIONS, open_ref
from tasks.sample_probes import read_probes, store_probes
from tasks.sharing import put_shared

__all__ = ["compare_streams"]


@task(
    name="compare",
    task_run_name="compare {source.name} → {target.base.name} {group}",
    tags=[DEVICE_TAG],
    **TASK_OPTIONS,
)
def compare_streams(
    source: BaseRef, target: PlannedTarget, group: LayerGroup, spec: TransferSpec
) -> StoredObject:
    """Let the source base write, run both bases over it, and store the moments at the ends of the layers."""

    def write(path: Path) -> None:
        store_probes(source, None, spec.streams.strings)
        with device_slot() as device:
            write_streams(path, _fit(source, target.base, group, spec, device))

    key = streams_key(source, target.base, spec.streams, group.first, group.last)
    stored, _ = put_shared(key, write)
    return stored


def _fit(
    source: BaseRef, target: BaseRef, group: LayerGroup, spec: TransferSpec, device: torch.device
) -> dict[int, CentredMoments]:
    landings = [
        one for one in effect_landings(source.layers, target.layers) if one.target_layer in group.layers
    ]
    with bases_in_memory(source, target, device=device) as (ours, theirs):
        return stream_moments(
            EffectSide(open_ref(source), ours),
            EffectSide(open_ref(target), theirs),
            read_probes(source, None, spec.streams.strings),
            landings,
        )
