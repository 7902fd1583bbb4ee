"""Project one adapter's updates onto one layer group of one target base: the fan-out of a migration."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from prefect import task

from cross_lora_core.migration import (
    BaseRef,
    FactorSource,
    GroupFile,
    Moving,
    PlannedItem,
    Projected,
    TransferSpec,
    alignment_key,
    maps_key,
    project_landings,
    projection_key,
    read_alignment,
    read_maps,
    round_projected,
    write_projections,
)
from cross_lora_core.models import LayerGroup, Role
from cross_lora_core.storage import StoredObject
from cross_lora_core.turns import Turns
from tasks.adapters_in_memory import source_updates
from tasks.device_slots import DEVICE_TAG, device_slot, small_products
from tasks.group_files import factor_reader
from tasks.runtime import TASK_OPTIONS, open_ref, open_stored, put_new, put_once

__all__ = ["project_group"]

_TURNS = Turns()
"""Task runs of neighbours wait for the one that carries them all. A cluster is sent the task's function with
its globals, and a lock cannot be sent: the function itself knows of none."""


@task(
    name="project",
    task_run_name="project {item.adapter.name} → {item.target.name} {group}",
    tags=[DEVICE_TAG],
    **TASK_OPTIONS,
)
def project_group(
    source: BaseRef,
    item: PlannedItem,
    group: LayerGroup,
    spec: TransferSpec,
    factors: FactorSource,
    neighbours: tuple[PlannedItem, ...] | None = None,
) -> StoredObject:
    """Carry an adapter's updates of a layer group to the target (Eq. 7) and store the new factors.

    Args:
        source: the base of the adapter.
        item: the adapter and its target.
        group: layers of the target.
        spec: the transfer.
        factors: where the factors are that it needs.
        neighbours: items of the same target whose updates of these layers are carried with it where they are
            not stored yet, so that factors are read once for all. Their own task runs wait and find them
            stored; what breaks for one of them is left to its own. The last of a few has none and waits all
            the same; None is for an item that nobody takes along.
    """

    def write(path: Path) -> None:
        with device_slot() as device, small_products():
            carry = _Carrier(source, group, spec, factors, device)
            write_projections(path, _with_neighbours(carry, item, neighbours or ()))

    with nullcontext() if neighbours is None else _turn(item, group, spec):
        # not durable: it is done again sooner than waited for
        return put_once(_key(source, item, group, spec), write, durable=False)


def _turn(item: PlannedItem, group: LayerGroup, spec: TransferSpec) -> threading.Lock:
    return _TURNS.of((item.target.digest, spec, group))


def _key(source: BaseRef, item: PlannedItem, group: LayerGroup, spec: TransferSpec) -> str:
    return projection_key(source, item.target, item.adapter.digest, spec, group.first, group.last)


def _with_neighbours(
    carry: _Carrier, item: PlannedItem, neighbours: Sequence[PlannedItem]
) -> dict[tuple[int, Role], Projected]:
    """The item's projections; those of neighbours are stored on the way."""
    company = [one for one in neighbours if carry.can(one)]
    try:
        mine, *theirs = carry([item, *company])
    except Exception:  # whose fault it was shows when each is alone
        if not company:
            raise
        return carry([item])[0]
    for one, projected in zip(company, theirs, strict=True):
        key = _key(carry.source, one, carry.group, carry.spec)
        put_new(key, partial(write_projections, projected=projected), durable=False)
    return mine


@dataclass(frozen=True)
class _Carrier:
    """Carries updates of one layer group to one target, on a device."""

    source: BaseRef
    group: LayerGroup
    spec: TransferSpec
    factors: FactorSource
    device: torch.device

    def can(self, item: PlannedItem) -> bool:
        """Whether an item has updates here that can be read and are not stored yet."""
        if not item.landings_in(self.group) or open_stored().exists(
            _key(self.source, item, self.group, self.spec)
        ):
            return False
        try:
            source_updates(self.source, item.adapter, self.device)
        except Exception:  # its own task run will say why
            return False
        return True

    def __call__(self, items: Sequence[PlannedItem]) -> list[dict[tuple[int, Role], Projected]]:
        target = items[0].target
        bounds = (self.source, target, self.spec, self.group.first, self.group.last)
        pairs = _opened(alignment_key(*bounds), self.device) if self.spec.needs.alignment else None
        maps = _opened(maps_key(*bounds), self.device) if self.spec.needs.maps else None
        projected = project_landings(
            [
                Moving(one.landings_in(self.group), source_updates(self.source, one.adapter, self.device))
                for one in items
            ],
            open_ref(target).linear,
            factor_reader(self.factors.source, self.device),
            factor_reader(self.factors.target, self.device),
            None if pairs is None else partial(read_alignment, pairs),
            self.spec,
            None if maps is None else partial(read_maps, maps),
        )
        return [round_projected(one, open_ref(target), self.spec) for one in projected]


def _opened(key: str, device: torch.device) -> GroupFile:
    return GroupFile(open_stored().fetch(key), device)
