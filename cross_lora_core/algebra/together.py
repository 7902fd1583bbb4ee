"""Transfers of several updates in one product: matrices are read once, and more columns run faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from cross_lora_core.algebra.factors import LoraFactors

__all__ = ["together"]

_FEWEST, _MULTIPLE = 12, 4
"""Ranks from which on, and in whose multiples, a CPU's product was found to round each rank alike whatever
stands beside it, so that an adapter is the same bytes alone and in company."""


def together(
    updates: Sequence[LoraFactors], transfer: Callable[[LoraFactors], LoraFactors]
) -> list[LoraFactors]:
    """What a transfer makes of each update, of all of them at once where their ranks allow it.

    Args:
        updates: of one weight, [d_out, d_in], of any ranks.
        transfer: treats every rank by itself: what becomes of a row of lora_A and its column of lora_B
            does not depend on the others.

    Returns:
        The transferred updates, in order, with scaling 1.
    """
    plain = [one.folded() for one in updates]
    alike = len({one.lora_B.dtype for one in plain}) == 1
    if len(plain) < 2 or not alike or any(one.rank < _FEWEST or one.rank % _MULTIPLE for one in plain):
        return [transfer(one) for one in plain]
    ranks = [one.rank for one in plain]
    lora_A = torch.cat([one.lora_A for one in plain])
    lora_B = torch.cat([one.lora_B for one in plain], dim=1)
    moved = transfer(LoraFactors(lora_A, lora_B))
    parts = zip(torch.split(moved.lora_A, ranks), torch.split(moved.lora_B, ranks, dim=1), strict=True)
    return [LoraFactors(rows.contiguous(), columns.contiguous()) for rows, columns in parts]
