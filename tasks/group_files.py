"""Read modules' factors from the stored objects of a layer group."""

from __future__ import annotations

from collections.abc import Callable

import torch

from cross_lora_core.migration import FactorObject, GroupFile, ModuleFactors, read_factors
from cross_lora_core.models import Role
from tasks.runtime import open_stored

__all__ = ["factor_reader"]


def factor_reader(
    objects: tuple[FactorObject, ...], device: torch.device
) -> Callable[[int, Role], ModuleFactors] | None:
    """A function `(layer, role) -> factors` over some stored objects; None where there are none."""
    if not objects:
        return None
    store = open_stored()
    files = [(one.group, GroupFile(store.fetch(one.key), device)) for one in objects]

    def read(layer: int, role: Role) -> ModuleFactors:
        file = next(file for group, file in files if group.first <= layer <= group.last)
        return read_factors(file, layer, role)

    return read
