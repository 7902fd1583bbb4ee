"""Train a target to do what a source does with an adapter: method `refine`, on strings the source wrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from prefect import get_run_logger, task

from cross_lora_core.adapters import local_adapter
from cross_lora_core.fitting import EffectSide, RefineFit, refine
from cross_lora_core.migration import (
    Method,
    Plan,
    PlannedItem,
    content_digest,
    projection_key,
    write_projections,
)
from cross_lora_core.settings import load_settings
from cross_lora_core.storage import StoredObject
from cross_lora_core.training import Checkpoint
from tasks.bases_in_memory import bases_in_memory
from tasks.device_slots import DEVICE_TAG, device_slot
from tasks.publish_adapter import projected_modules
from tasks.runtime import TASK_OPTIONS, open_ref
from tasks.sample_probes import read_probes
from tasks.sharing import put_shared

__all__ = ["refine_adapter"]

_KEPT_STEPS = 10
"""Steps between two checkpoints: on a CPU some minutes."""


@task(
    name="refine",
    task_run_name="refine {item.adapter.name} → {item.target.name}",
    tags=[DEVICE_TAG],
    **TASK_OPTIONS,
)
def refine_adapter(plan: Plan, start: Plan, item: PlannedItem) -> StoredObject:
    """Train and store the updates of the whole target.

    A run that was killed goes on from its checkpoint when the task, or the migration, runs again on the
    same machine; on another it begins anew.

    Args:
        plan: of the refinement.
        start: of the transfer whose updates it goes on from; they must be there.
        item: the adapter and its target.
    """
    ((first, last),) = plan.stored_spans(item)
    key = projection_key(plan.source, item.target, item.adapter.digest, plan.spec, first, last)
    folder = load_settings().work / f"refine-{content_digest(key)[:16]}"
    checkpoint = Checkpoint(folder, key, every=_KEPT_STEPS)

    def write(path: Path) -> None:
        with device_slot() as device:
            fit = _fit(plan, start, item, device, checkpoint)
        told = fit.as_dict()
        get_run_logger().info(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in told.items()))
        write_projections(path, fit.projected, told)

    stored, _ = put_shared(key, write)
    shutil.rmtree(folder, ignore_errors=True)
    return stored


def _fit(
    plan: Plan, start: Plan, item: PlannedItem, device: torch.device, checkpoint: Checkpoint
) -> RefineFit:
    with bases_in_memory(plan.source, item.target, device=device) as (ours, theirs):
        return refine(
            EffectSide(open_ref(plan.source), ours),
            EffectSide(open_ref(item.target), theirs),
            local_adapter(item.adapter.location, item.adapter.digest),
            read_probes(plan.source, item.adapter, plan.spec.strings),
            plan.landings_of(item),
            {key: one.update for key, one in projected_modules(start, item).items()},
            _rank(plan, item),
            plan.spec.training,
            checkpoint=checkpoint,
            tell=_tell,
        )


def _rank(plan: Plan, item: PlannedItem) -> int:
    """Of every update; a copy is gone on from whole."""
    whole = item.adapter.rank if plan.spec.begins_with is Method.COPY else 0
    return plan.spec.output_rank or max(plan.spec.fit_rank, whole)


def _tell(done: int, loss: float) -> None:
    if done % _KEPT_STEPS == 0:
        get_run_logger().info("step %d, loss %.4f", done, loss)
