"""Assemble the projected layer groups of an adapter into a PEFT folder and publish it in the store."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from prefect import task

from cross_lora_core.adapters import write_adapter
from cross_lora_core.errors import ObjectExists
from cross_lora_core.migration import (
    Plan,
    PlannedItem,
    Projected,
    adapter_prefix,
    projection_key,
    read_projections,
    read_training,
)
from cross_lora_core.models import Role
from cross_lora_core.storage import MARKER, missing
from tasks.device_slots import small_products
from tasks.runtime import TASK_OPTIONS, open_ref, open_stored

__all__ = ["Published", "projected_modules", "publish_adapter"]

_WEIGHTS = "adapter_model.safetensors"
_TRAINED = (
    "Trained by cross-lora-fleet: another base model with its adapter was distilled into this one, on "
    "strings that the two generated. No user data was read."
)


@dataclass(frozen=True)
class Published:
    """A published adapter: its folder in the store, its URL for loaders, its weights' digest, its rank."""

    prefix: str
    url: str
    sha256: str
    rank: int


def projected_modules(plan: Plan, item: PlannedItem) -> dict[tuple[int, Role], Projected]:
    """Everything that was projected for an item, read back from the store."""
    store = open_stored()
    result: dict[tuple[int, Role], Projected] = {}
    for key in _stored_keys(plan, item):
        result |= read_projections(store.fetch(key))
    return result


def _stored_keys(plan: Plan, item: PlannedItem) -> list[str]:
    return [
        projection_key(plan.source, item.target, item.adapter.digest, plan.spec, *span)
        for span in plan.stored_spans(item)
    ]


@task(
    name="publish",
    task_run_name="publish {item.adapter.name} for {item.target.name}",
    tags=["publish"],
    **TASK_OPTIONS,
)
def publish_adapter(plan: Plan, item: PlannedItem) -> Published:
    """Write the adapter that PEFT and vLLM load; the version follows from the inputs.

    One that is there already, whole, is neither assembled nor written again.
    """
    prefix = adapter_prefix(plan.source, item.target, item.adapter.name, item.adapter.digest, plan.spec)
    store = open_stored()
    if store.stat(f"{prefix}/{MARKER}") is None:
        with small_products():
            _assemble(plan, item, prefix)
    else:
        store.fetch(f"{prefix}/{_WEIGHTS}")  # verified, as what was just written need not be
    return _published(prefix)


def _assemble(plan: Plan, item: PlannedItem, prefix: str) -> None:
    projected = projected_modules(plan, item)
    trained = _training(plan, item)
    store = open_stored()
    with store.workspace() as scratch:
        folder = scratch / "adapter"
        write_adapter(
            folder,
            open_ref(item.target),
            {key: one.update for key, one in projected.items()},
            rank=plan.spec.fit_rank if trained else plan.spec.output_rank,
            dtype=getattr(torch, plan.spec.output_dtype),
            provenance=_provenance(plan, item, projected) | trained,
            **({"origin": _TRAINED} if trained else {}),
        )
        with suppress(ObjectExists):  # another worker published the same version first; its folder stands
            store.put_folder(prefix, folder)


def _training(plan: Plan, item: PlannedItem) -> dict[str, Any]:
    """How the updates were trained, where they were."""
    told = [read_training(open_stored().fetch(key)) for key in _stored_keys(plan, item)]
    return {"training": told[0]} if told and told[0] else {}


def _published(prefix: str) -> Published:
    store = open_stored()
    rank = json.loads(store.get(f"{prefix}/{MARKER}"))["r"]
    weights = store.stat(f"{prefix}/{_WEIGHTS}")
    if weights is None:
        raise missing(f"{store.url}/{prefix}/{_WEIGHTS}")
    return Published(prefix, store.folder_url(prefix), weights.sha256, rank)


def _provenance(
    plan: Plan, item: PlannedItem, projected: dict[tuple[int, Role], Projected]
) -> dict[str, Any]:
    """Lineage and measures, the same every time the same migration runs."""
    return {
        "source_base": plan.source.name,
        "source_base_digest": plan.source.digest,
        "target_base": item.target.name,
        "target_base_digest": item.target.digest,
        "target_base_revision": item.target.revision,
        "adapter": item.adapter.name,
        "adapter_digest": item.adapter.digest,
        "method": str(plan.spec.method),
        "rank_of_bases": plan.spec.rank,
        "anchor": plan.spec.anchor,
        "modules": [
            {
                "layer": one.measure.layer,
                "role": str(one.measure.role),
                "source_layer": one.measure.source_layer,
                "retained_energy": one.measure.retained_energy,
                "source_norm": one.measure.source_norm,
                "norm": one.measure.norm,
                "explained": one.measure.explained,
            }
            for one in projected.values()
        ],
        "skipped": [{"module": one.module, "reason": one.reason} for one in plan.skipped_of(item)],
    }
