"""Split and join updates of fused projections (q|k|v, gate|up), exactly."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cross_lora_core.algebra.factors import LoraFactors

__all__ = ["select_rows", "stack_outputs"]


def select_rows(update: LoraFactors, rows: Tensor) -> LoraFactors:
    """The update of some output rows of a fused module; A and the scaling are shared.

    Args:
        update: of the fused module, [d_out, d_in].
        rows: int64 [n], rows of the fused output.
    """
    return LoraFactors(update.lora_A, update.lora_B[rows.to(update.lora_B.device)], update.scaling)


def stack_outputs(parts: Sequence[tuple[LoraFactors, Tensor]], d_out: int) -> LoraFactors:
    """One update of a fused module from updates of its slices; the ranks add up.

    Args:
        parts: each slice's update and its rows of the fused output, int64 [d_out of the slice].
        d_out: rows of the fused module.

    Raises:
        ValueError: no part, or parts that read different widths.
    """
    if len({part.d_in for part, _ in parts}) != 1:
        raise ValueError(f"expected parts that read one width, got {[part.d_in for part, _ in parts]}")
    plain = [(part.folded(), rows) for part, rows in parts]
    lora_B = plain[0][0].lora_B.new_zeros(d_out, sum(part.rank for part, _ in plain))
    column = 0
    for part, rows in plain:
        lora_B[rows.to(lora_B.device), column : column + part.rank] = part.lora_B
        column += part.rank
    return LoraFactors(torch.cat([part.lora_A for part, _ in plain]), lora_B)
