"""Control adapters beside one that was written: noise of the same norm, and nothing at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch

from cross_lora_core import algebra
from cross_lora_core.adapters import read_adapter, updates_by_role, write_adapter
from cross_lora_core.algebra import LoraFactors
from cross_lora_core.models import BaseModel, LinearSpec

__all__ = ["Control", "random_control", "write_control", "zero_control"]

Control = Callable[[LoraFactors, LinearSpec], LoraFactors]
"""From one update, as written, and its module in the target to that of the control."""


def random_control(seed: int) -> Control:
    """Random updates, each drawn anew; slices of a fused module share lora_A, as the written ones do."""
    seeds = iter(range(seed * 1_000_003, seed * 1_000_003 + 10**9))
    inputs: defaultdict[str, int] = defaultdict(lambda: next(seeds))

    def control(update: LoraFactors, linear: LinearSpec) -> LoraFactors:
        shared = inputs[linear.module]
        return algebra.random_like(update, linear.d_out, linear.d_in, next(seeds), input_seed=shared)

    return control


def zero_control(update: LoraFactors, linear: LinearSpec) -> LoraFactors:
    """An update that changes nothing."""
    return algebra.zero(update, linear.d_out, linear.d_in)


def write_control(
    migrated: Path, target: BaseModel, dtype: torch.dtype, folder: Path, control: Control
) -> None:
    """A control adapter with the modules, rank and (random) norms of the one written; never published."""
    written = read_adapter(migrated)
    updates = {
        (layer, role): control(_without_padding(one), target.linear(layer, role))
        for (layer, role), one in sorted(updates_by_role(written, target).updates.items())
    }
    write_adapter(folder, target, updates, rank=written.modules[0].update.rank, dtype=dtype)


def _without_padding(update: LoraFactors) -> LoraFactors:
    """Without the rows and columns of zeros that brought it to the rank written; one stays."""
    used = int(update.lora_A.any(dim=1).sum()) or 1
    return LoraFactors(update.lora_A[:used], update.lora_B[:, :used], update.scaling)
