"""Sums over large matrices in float64, of which only some rows are converted at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["blocks", "gram", "squared_norm"]

_ENTRIES = 1 << 20
"""Of a matrix that are converted at a time."""
_SAFE = 1e-20
"""A squared norm to which what float32 rounds to nothing adds nothing."""


def gram(matrix: Tensor) -> Tensor:
    """`M^T M` in float64, [columns, columns]."""
    columns = matrix.shape[1]
    result = torch.zeros(columns, columns, dtype=torch.float64, device=matrix.device)
    for block in blocks(matrix):
        double = block.double()
        result.addmm_(double.T, double)
    return result


def squared_norm(matrix: Tensor) -> float:
    """`||M||_F^2`; not finite if an entry is not.

    Rows are summed in the matrix's own precision, and in float64 where that may round to nothing or overflow.
    """
    total = float(torch.linalg.vector_norm(matrix, dim=1).double().square().sum())
    if _SAFE < total < math.inf:
        return total
    return sum(float(block.double().square().sum()) for block in blocks(matrix))


def blocks(matrix: Tensor) -> Sequence[Tensor]:
    """Some rows at a time."""
    return torch.split(matrix, max(1, _ENTRIES // matrix.shape[1]))
