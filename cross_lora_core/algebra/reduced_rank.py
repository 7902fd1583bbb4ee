"""The low-rank map that predicts best: reduced-rank ridge regression, in closed form from second moments.

`argmin over rank(W) <= r of sum ||y - W x||^2 + ridge mean_diag ||W||^2`. With `K = xx + ridge mean_diag I`
and its Cholesky factor `K = L L^T`, the unconstrained answer in the metric of the inputs is `T = yx L^-T`;
the best rank-r answer keeps its first r left singular vectors `U`, so `W = U (U^T yx K^-1)`. `U` comes from
the eigenvectors of `T T^T` [d_y, d_y], the smaller problem where a module reads more than it writes.
"""

from __future__ import annotations

import torch

from cross_lora_core.algebra.eigenvectors import largest_eigenvectors
from cross_lora_core.algebra.factors import LoraFactors
from cross_lora_core.algebra.ridge import Moments

__all__ = ["reduced_rank_ridge"]


def reduced_rank_ridge(moments: Moments, ridge: float, rank: int) -> LoraFactors:
    """The update of at most `rank` that predicts y from x best.

    Args:
        moments: of the pairs (x [d_in], y [d_out]).
        ridge: positive, in units of the mean diagonal of `xx`.
        rank: r, at least 1; a smaller width bounds it.

    Returns:
        lora_A float32 [r, d_in] and lora_B float32 [d_out, r], scaling 1. Zero where x never responds.

    Raises:
        ValueError: rank or ridge is not positive, or the moments are not finite.
    """
    if ridge <= 0 or rank < 1:
        raise ValueError(f"expected a positive ridge and rank, got {ridge} and {rank}")
    d_out, d_in = moments.yx.shape
    rank = min(rank, d_out, d_in)
    if moments.mean_diagonal == 0.0:
        zeros = moments.yx.new_zeros
        return LoraFactors(zeros(rank, d_in).float(), zeros(d_out, rank).float())
    root = moments.root(ridge)
    if root is None:
        raise ValueError(f"expected finite moments, got some that a ridge of {ridge} does not make regular")
    whitened = torch.linalg.solve_triangular(root, moments.yx.T, upper=False).T
    found = largest_eigenvectors(whitened @ whitened.T, rank)
    if found is None:
        raise ValueError("expected finite moments, got some that overflow")
    _, U = found
    lora_A = torch.linalg.solve_triangular(root.T, (U.T @ whitened).T, upper=True).T
    return LoraFactors(lora_A.float().contiguous(), U.float().contiguous())
