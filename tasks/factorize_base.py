"""Factorize one layer group of a base model; done once per base and spec, shared by every fleet."""

from __future__ import annotations

import time
from pathlib import Path

from prefect import get_run_logger, task

from cross_lora_core.migration import BaseRef, FactorSpec, factorize_layers, factors_key, write_factors
from cross_lora_core.models import LayerGroup
from cross_lora_core.storage import StoredObject
from tasks.device_slots import DEVICE_TAG, device_slot
from tasks.runtime import TASK_OPTIONS, open_catalog, open_ref
from tasks.sharing import put_shared

__all__ = ["factorize_group"]


@task(
    name="factorize",
    task_run_name="factorize {base.name} {group}",
    tags=[DEVICE_TAG],
    **TASK_OPTIONS,
)
def factorize_group(base: BaseRef, group: LayerGroup, spec: FactorSpec) -> StoredObject:
    """Compute and store the truncated SVD of every weight of a layer group, or find it stored."""
    key = factors_key(base.digest, spec, group.first, group.last)
    started = time.monotonic()

    def write(path: Path) -> None:
        layers = range(group.first, group.last + 1)
        with device_slot() as device:
            write_factors(path, factorize_layers(open_ref(base), layers, spec, device))

    stored, computed = put_shared(key, write)
    seconds = time.monotonic() - started if computed else None
    with open_catalog().begin() as work:
        work.add_factor_set(
            base_digest=base.digest,
            spec=spec.key,
            group_index=group.index,
            first_layer=group.first,
            last_layer=group.last,
            store_key=stored.key,
            sha256=stored.sha256,
            size_bytes=stored.size,
            rank=spec.rank,
            seconds=seconds,
        )
    became = "found, factorized before" if seconds is None else f"stored after {seconds:.1f} s"
    get_run_logger().info("%s: %s, %.1f MB", stored.key, became, stored.size / 2**20)
    return stored
