"""The leading eigenvectors of a positive semidefinite matrix, where few of many are wanted.

Subspace iteration on a block half as wide again as what is wanted; between two
Rayleigh-Ritz steps a Chebyshev polynomial damps what lies outside the block (Zhou and
Saad, "A Chebyshev-Davidson algorithm for large symmetric eigenproblems", 2007).
On weights of real bases the spectrum decays slowly (the 320th singular value of
1536 is a fifth of the first), which is where a plain randomised SVD stalls and
where the filter needs 8 to 17 products with the matrix. Up to a width of 3,072 the
direct way (`eigenvectors.py`) is faster.

The filter's degree is bound so that what it raises most does not drown, in the
matrix's own precision, what it raises least. Everything that decides, Gram matrices of
the block and their eigenvectors, is in float64. The start is drawn from a fixed seed on the
CPU, so that the same matrix gives the same vectors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cross_lora_core.algebra.doubled import gram
from cross_lora_core.algebra.eigenvectors import largest_eigenvectors

__all__ = ["leading_basis", "missed_share", "pays"]

GOAL = 1e-6
"""Estimated share of the wanted subspace that may be missed when the iteration ends."""
LARGEST_STEPS = 80
"""Products with the matrix after which the iteration is given up."""
SPREAD = 1e6
"""Largest ratio between what the filter does to the first and to the last wanted vector."""
DIRECT = 3072
"""Width up to which the direct way is taken on a CPU (measured: docs/scaling.md)."""
DIRECT_ON_A_GPU = 1536
"""There it takes all eigenvectors."""
BESIDE = 16
"""Columns beside the wanted ones, at least."""
SEED = 20


@dataclass(frozen=True, eq=False)
class _Block:
    """Orthonormal Ritz vectors X [n, q], their images GX, and their values in descending order."""

    vectors: Tensor
    images: Tensor
    values: Tensor

    @property
    def edge(self) -> float:
        """Where the wanted part of the spectrum ends for the filter; never below rounding."""
        return max(float(self.values[-1]), float(self.values[0]) * torch.finfo(self.vectors.dtype).eps)


def pays(width: int, count: int, device: torch.device) -> bool:
    """Whether `leading_basis` finds `count` vectors of a matrix faster than all of them are found."""
    if _is_direct(width, device):
        return count + BESIDE <= width
    return 2 * _block_width(count) <= width


def leading_basis(matrix: Tensor, count: int) -> Tensor | None:
    """Orthonormal columns whose span holds the eigenvectors of the largest eigenvalues.

    Args:
        matrix: [n, n], symmetric, positive semidefinite, contiguous; its memory may be used up.
        count: eigenvectors that are wanted; few enough that it `pays`.

    Returns:
        [n, count + BESIDE or more], Ritz vectors in descending order; or None where the iteration did not get
        there: a gap too small behind the wanted ones, or eigenvalues below rounding among them.
    """
    if _is_direct(len(matrix), matrix.device):
        return largest_eigenvectors(matrix, count + BESIDE)
    start = torch.randn(len(matrix), _block_width(count), generator=torch.Generator().manual_seed(SEED))
    block, steps = _ritz(matrix, matrix @ start.to(matrix)), 2
    while block is not None:
        residual = block.images[:, :count] - block.vectors[:, :count] * block.values[:count]
        if missed_share(residual, block.values, count) <= GOAL:
            return block.vectors
        degree = _degree(block, count)
        if steps + degree > LARGEST_STEPS:
            return None
        span = _filtered(matrix, block, degree)
        block = None  # its memory goes to the next one
        block, steps = _ritz(matrix, span), steps + degree
    return None


def missed_share(residual: Tensor, values: Tensor, count: int) -> float:
    """Estimate of the share of a wanted invariant subspace that Ritz vectors miss.

    The mean over the wanted vectors of `(|r_i| / (value_i - last value))^2`: by Davis and Kahan the
    squared sine of the angle to what lies outside the block, whose eigenvalues are about the last
    value of the block or below.

    Args:
        residual: [n, count], `G x_i - value_i x_i`.
        values: [q], Ritz values of the whole block, descending.
        count: how many of them are wanted.
    """
    gaps = (values[:count] - values[-1]).clamp_min(torch.finfo(values.dtype).tiny)
    sines = torch.linalg.vector_norm(residual, dim=0).to(values.dtype) / gaps
    return float(sines.square().clamp_max(1.0).mean())


def _is_direct(width: int, device: torch.device) -> bool:
    return width <= (DIRECT if device.type == "cpu" else DIRECT_ON_A_GPU)


def _block_width(count: int) -> int:
    """Columns that are iterated for `count` wanted vectors: half as many again, and `BESIDE` at least."""
    return count + max(BESIDE, count // 2)


def _ritz(matrix: Tensor, span: Tensor) -> _Block | None:
    """Rayleigh-Ritz on a span of any columns, which are scaled in place; None where they are dependent."""
    span /= torch.linalg.vector_norm(span, dim=0)
    images = matrix @ span
    lower, failed = torch.linalg.cholesky_ex(gram(span))
    if bool(failed):
        return None
    middle = torch.linalg.solve_triangular(lower, gram(span, images), upper=False)
    middle = torch.linalg.solve_triangular(lower, middle.T, upper=False)
    values, turn = torch.linalg.eigh((middle + middle.T) / 2)
    turn = torch.linalg.solve_triangular(lower.T, turn.flip(1), upper=True).to(span.dtype)
    return _Block(span @ turn, images @ turn, values.flip(0))


def _degree(block: _Block, count: int) -> int:
    """The largest degree whose filter spreads the wanted vectors no further apart than `SPREAD`."""
    ends = (float(block.values[0]), float(block.values[count - 1]))
    first, last = (math.acosh(max(1.0, 2 * one / block.edge - 1)) for one in ends)
    degree = 1
    while degree < 10 and math.cosh((degree + 1) * first) <= SPREAD * math.cosh((degree + 1) * last):
        degree += 1
    return degree


def _filtered(matrix: Tensor, block: _Block, degree: int) -> Tensor:
    """The Chebyshev polynomial of `[0, last value]` applied to the block, scaled to 1 at the first value."""
    half = block.edge / 2
    first = half / (float(block.values[0]) - half)
    scale, before, now = first, block.vectors, (block.images / half - block.vectors) * first
    for _ in range(degree - 1):
        ahead = 1 / (2 / first - scale)
        following = torch.addmm(now, matrix, now, beta=-2 * ahead, alpha=2 * ahead / half)
        before, now, scale = now, following.sub_(before, alpha=scale * ahead), ahead
    return now
