"""Map the responses of one layer group of a pair of bases; done once per pair, shared by every adapter."""

from __future__ import annotations

from pathlib import Path

import torch
from prefect import get_run_logger, task

from cross_lora_core.fitting import EffectSide, fit_maps, pair_moments
from cross_lora_core.migration import (
    BaseRef,
    ModuleMaps,
    PlannedTarget,
    TransferSpec,
    maps_key,
    write_maps,
)
from cross_lora_core.models import LayerGroup, Role
from cross_lora_core.responses import ProbeKind, probe_strings
from cross_lora_core.storage import StoredObject
from tasks.bases_in_memory import bases_in_memory
from tasks.device_slots import DEVICE_TAG, device_slot
from tasks.runtime import TASK_OPTIONS, open_ref
from tasks.sharing import put_shared

__all__ = ["map_group"]


@task(
    name="map",
    task_run_name="map {source.name} → {target.base.name} {group}",
    tags=[DEVICE_TAG],
    **TASK_OPTIONS,
)
def map_group(source: BaseRef, target: PlannedTarget, group: LayerGroup, spec: TransferSpec) -> StoredObject:
    """Run both bases over the probes and store the maps of every pair of mapped modules of the group."""

    def write(path: Path) -> None:
        with device_slot() as device:
            maps = _fit(source, target, group, spec, device)
        errors = [(one.fit.input_error + one.fit.output_error) / 2 for one in maps.values()]
        get_run_logger().info("mean error on held-out probes %.2f", sum(errors) / len(errors))
        write_maps(path, maps)

    stored, _ = put_shared(maps_key(source, target.base, spec, group.first, group.last), write)
    return stored


def _fit(
    source: BaseRef, target: PlannedTarget, group: LayerGroup, spec: TransferSpec, device: torch.device
) -> dict[tuple[int, Role], ModuleMaps]:
    bases = open_ref(source), open_ref(target.base)
    landings, probes = target.shared_landings(group, *bases), spec.maps
    with bases_in_memory(source, target.base, device=device) as (ours, theirs):
        strings = probe_strings(
            ProbeKind(probes.kind),
            probes.count + probes.held_out,
            source=bases[0],
            target=bases[1],
            loaded=ours,
            tokens=probes.tokens,
            seed=probes.seed,
        )
        sides = EffectSide(bases[0], ours), EffectSide(bases[1], theirs)
        fitted, held_out = (
            pair_moments(landings, *sides, part)
            for part in (strings[: probes.count], strings[probes.count :])
        )
    return fit_maps(landings, bases, fitted, held_out, target.layer_map)
