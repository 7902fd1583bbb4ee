"""Adapters that this process has read: the tasks of an adapter's layer groups share one reading of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from cross_lora_core.adapters import updates_by_role
from cross_lora_core.algebra import LoraFactors
from cross_lora_core.migration import AdapterRef, BaseRef
from cross_lora_core.models import Role
from cross_lora_core.turns import Turns
from tasks.runtime import open_ref, read_ref

__all__ = ["ADAPTERS_TOGETHER", "source_updates"]

ADAPTERS_TOGETHER = 4
"""Adapters that a task projects together at most, and that are kept."""

_TURNS = Turns()


def source_updates(
    source: BaseRef, adapter: AdapterRef, device: torch.device
) -> Mapping[tuple[int, Role], LoraFactors]:
    """An adapter's updates by source layer and role, on a device, not to be written to.

    Read once by the first task that asks, checked against the digest that was planned with, and kept in
    memory of its own: a file that changes later changes nothing.

    Raises:
        FinalError: its content is not what the migration was planned with.
        AdapterRefused: as for `read_adapter` and `updates_by_role`.
    """
    with _TURNS.of(adapter):  # others that ask for it meanwhile wait for the one reading
        return _read(source, adapter, device)


@lru_cache(maxsize=ADAPTERS_TOGETHER)
def _read(
    source: BaseRef, adapter: AdapterRef, device: torch.device
) -> Mapping[tuple[int, Role], LoraFactors]:
    updates = updates_by_role(read_ref(adapter), open_ref(source)).updates
    return {
        key: LoraFactors(_packed(update.lora_A).to(device), _packed(update.lora_B).to(device), update.scaling)
        for key, update in updates.items()
    }


def _packed(tensor: Tensor) -> Tensor:
    """The same numbers in half the memory, where a half precision holds them all."""
    if tensor.dtype != torch.float32:
        return tensor
    for dtype in (torch.float16, torch.bfloat16):
        half = tensor.to(dtype)
        if torch.equal(half.to(tensor.dtype), tensor):
            return half
    return tensor
