"""One-to-one matching of rows with columns, best score first: neurons or heads of two models."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["match_greedily"]


def match_greedily(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Pair rows with columns so that the best score left is always taken next.

    Pairs that are best for both sides are taken together, a round at a time, which is the same matching.

    Args:
        scores: [n, m], finite.

    Returns:
        Rows and columns of the pairs, int64 [min(n, m)] each.
    """
    left = scores.double().clone()
    rows: list[Tensor] = []
    columns: list[Tensor] = []
    for _ in range(min(left.shape)):
        if sum(map(len, rows)) == min(left.shape):
            break
        row, column = _best_for_both(left)
        left[row], left[:, column] = -torch.inf, -torch.inf
        rows.append(row)
        columns.append(column)
    empty = torch.empty(0, dtype=torch.long, device=scores.device)
    return torch.cat([empty, *rows]), torch.cat([empty, *columns])


def _best_for_both(left: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs that are best in their row and their column; among equal scores at least one."""
    best, favourite = left.max(1)
    number = torch.arange(len(left), device=left.device)
    mutual = (left.argmax(0)[favourite] == number) & best.isfinite()
    if bool(mutual.any()):
        return number[mutual], favourite[mutual]
    first = int(left.argmax())
    at = torch.tensor([first], device=left.device)
    return at // left.shape[1], at % left.shape[1]
