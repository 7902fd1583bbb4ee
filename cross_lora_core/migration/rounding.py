"""Round projected updates to the precision they are published in, where publishing would do nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from cross_lora_core.adapters import round_update
from cross_lora_core.errors import AdapterRefused
from cross_lora_core.migration.layers import Projected
from cross_lora_core.migration.spec import TransferSpec
from cross_lora_core.models import BaseModel, Role

__all__ = ["round_projected"]


def round_projected(
    projected: Mapping[tuple[int, Role], Projected], target: BaseModel, spec: TransferSpec
) -> dict[tuple[int, Role], Projected]:
    """Updates as they are kept until publication, in `spec.kept_dtype`; the published bytes stay the same.

    Those that publishing still joins with others of a fused module or cuts to a smaller rank stay as they
    are; so do those that do not fit the precision, which publishing refuses.
    """
    dtype = getattr(torch, spec.kept_dtype)
    if dtype is torch.float32:
        return dict(projected)
    return {key: _rounded(one, target, spec, dtype) for key, one in projected.items()}


def _rounded(one: Projected, target: BaseModel, spec: TransferSpec, dtype: torch.dtype) -> Projected:
    joined = target.linear(one.measure.layer, one.measure.role).fused_out is not None
    if joined or (spec.output_rank is not None and one.update.rank > spec.output_rank):
        return one
    try:
        return replace(one, update=round_update(one.update, dtype))
    except AdapterRefused:
        return one
