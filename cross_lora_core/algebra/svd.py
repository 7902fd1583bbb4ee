"""Truncated SVD of a base weight, exact to rounding, with its energy measured (Eq. 1-2).

The eigenvectors of the smaller Gram matrix are one side of the SVD; the other side is one
product away. A Gram matrix squares the condition number, so what comes out is tested and the
next, slower way is taken where the test fails:

1. few of many triples of a float32 weight: leading eigenvectors of the Gram matrix in float32, then
   a Rayleigh-Ritz step on `W V` in float64; tested by the residuals `W^T u - s v`;
2. the same from the Gram matrix in float64, where one direction towers over the others;
3. eigenvectors of the Gram matrix in float64, directly; tested by the orthonormality of the recovered side;
4. the full SVD.

Besides the weight and the result a few `d x rank` blocks, one Gram matrix and, beyond the width that is left
to LAPACK, up to `8 x rank` vectors of the smaller side are held.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from cross_lora_core.algebra.doubled import blocks, gram, squared_norm
from cross_lora_core.algebra.eigenvectors import largest_eigenvectors
from cross_lora_core.algebra.factors import SpectralFactors, working_dtype
from cross_lora_core.algebra.leading import leading_basis, pays

__all__ = ["factorize"]

ORTHONORMALITY = 1e-4
"""Largest entry of |Q^T Q - I| accepted of the side that was recovered by a product."""
MISSED = 1e-5
"""Largest estimated share of the wanted subspace that the first way may miss."""
PROBES = 16
"""Sums of residuals that are tested."""
SEED = 21
PANEL = 256
"""Columns of a Gram matrix that are computed at a time."""
SMALL = 512
"""Width of a Gram matrix up to which float64 costs nothing that matters."""

_Triples = tuple[Tensor, Tensor, Tensor]


def factorize(weight: Tensor, rank: int) -> SpectralFactors:
    """The `rank` largest singular triples of a weight.

    The rank is clipped to the smaller side, and to the numerical rank of the
    weight: directions below rounding have no meaning. A zero weight keeps one
    triple with `S = 0`, so that bases are never empty. Signs are fixed by
    making the largest entry of each column of U positive.

    Args:
        weight: [d_out, d_in], any floating dtype and memory layout; computed in float32 (float64 stays).
        rank: triples to keep, at least 1.

    Raises:
        ValueError: not a matrix, a rank below 1, or an entry that is not finite.
    """
    _check(weight, rank)
    dense = weight.to(working_dtype(weight)).contiguous()
    total = squared_norm(dense)
    if not math.isfinite(total):
        _refuse_nonfinite(dense)
    if total == 0.0:
        return _zero(dense)
    U, S, Vh = _triples(dense, rank)
    keep = _numerical_rank(S, dense)
    U, Vh = _fix_signs(U[:, :keep], Vh[:keep])
    energy = min(1.0, float(S[:keep].double().square().sum()) / total)
    return SpectralFactors(U.contiguous(), S[:keep].contiguous(), Vh.contiguous(), energy)


def _check(weight: Tensor, rank: int) -> None:
    if weight.ndim != 2 or min(weight.shape) < 1:
        raise ValueError(f"expected a matrix, got shape {list(weight.shape)}")
    if rank < 1:
        raise ValueError(f"expected a rank of at least 1, got {rank}")


def _refuse_nonfinite(dense: Tensor) -> None:
    if not all(bool(torch.isfinite(block).all()) for block in blocks(dense)):
        raise ValueError("expected finite entries, got NaN or infinity in the weight")


def _zero(dense: Tensor) -> SpectralFactors:
    U, Vh = dense.new_zeros(dense.shape[0], 1), dense.new_zeros(1, dense.shape[1])
    U[0, 0] = Vh[0, 0] = 1.0
    return SpectralFactors(U, dense.new_zeros(1), Vh, 1.0)


def _triples(dense: Tensor, rank: int) -> _Triples:
    tall = dense if dense.shape[0] >= dense.shape[1] else dense.T
    found = _by_leading_vectors(tall, rank) or _by_gram(tall, rank)
    if found is None:
        return _by_full_svd(dense, rank)
    left, S, right = (one.to(dense.dtype) for one in found)
    return (left, S, right.T) if tall is dense else (right, S, left.T)


def _by_leading_vectors(tall: Tensor, rank: int) -> _Triples | None:
    """Triples (left, S, right) in float32; None where that does not pay, or misses too much."""
    width = tall.shape[1]
    if tall.dtype != torch.float32 or width <= SMALL or not pays(width, rank, tall.device):
        return None
    return _from_gram(tall, lambda: _gram_by_halves(tall), rank) or _from_gram(tall, lambda: gram(tall), rank)


def _gram_by_halves(tall: Tensor) -> Tensor:
    """The Gram matrix in the weight's own precision; what is above the diagonal is copied from below."""
    columns = tall.shape[1]
    result = tall.new_empty(columns, columns)
    for start in range(0, columns, PANEL):
        stop = min(start + PANEL, columns)
        torch.mm(tall[:, start:].T, tall[:, start:stop], out=result[start:, start:stop])
        result[start:stop, stop:] = result[stop:, start:stop].T
    return result


def _from_gram(tall: Tensor, form: Callable[[], Tensor], rank: int) -> _Triples | None:
    basis = leading_basis(form(), rank)  # which alone holds the Gram matrix
    return None if basis is None else _refined(tall, basis.to(tall.dtype), rank)


def _refined(tall: Tensor, basis: Tensor, rank: int) -> _Triples | None:
    """The best triples inside a span of right vectors; None if they are none of the weight's."""
    image = tall @ basis
    values, turn = torch.linalg.eigh(gram(image))
    values, turn = values.flip(0).clamp_min(0.0), turn.flip(1)[:, :rank]
    S = values[:rank].sqrt()
    if int((S > S[0] * _tolerance(tall)).sum()) < rank:
        return None
    left = image @ (turn / S).to(image.dtype)
    right = basis @ turn.to(basis.dtype)
    missed = _missed_share(tall, (left, S, right), values[-1])
    return (left, S, right) if missed <= MISSED and _is_orthonormal(left) else None


def _missed_share(tall: Tensor, triples: _Triples, last: Tensor) -> float:
    """`missed_share` of triples, from the residuals `W^T u - s v` of a few sums of them with random signs.

    The squared norm of such a sum is on average the sum of the squared norms (Hutchinson, 1990), so a
    product with a few vectors takes the place of one with all.
    """
    left, S, right = triples
    signs = torch.randint(2, (len(S), PROBES), generator=torch.Generator().manual_seed(SEED)) * 2 - 1
    mix = signs.to(S) * (S / (S.square() - last).clamp_min(torch.finfo(S.dtype).tiny))[:, None]
    found = tall.T @ (left @ mix.to(left.dtype)) - right @ (mix * S[:, None]).to(right.dtype)
    return float(found.double().square().sum()) / (PROBES * len(S))


def _by_gram(tall: Tensor, rank: int) -> _Triples | None:
    """Triples (left, S, right) by eigenvectors in float64; None if the other side is not orthonormal."""
    found = largest_eigenvectors(gram(tall), min(rank, tall.shape[1]))
    if found is None:
        return None
    _, right = found
    image = torch.cat([block.double() @ right for block in blocks(tall)])
    S = torch.linalg.vector_norm(image, dim=0)
    keep = int((S > S.max() * _tolerance(tall)).sum())
    left = (image[:, :keep] / S[:keep]).to(tall.dtype)
    return (left, S[:keep], right[:, :keep]) if _is_orthonormal(left) else None


def _is_orthonormal(columns: Tensor) -> bool:
    found = columns.T @ columns  # in their own precision, far finer than what is accepted
    return float((found - torch.eye(len(found)).to(found)).abs().max()) <= ORTHONORMALITY


def _by_full_svd(dense: Tensor, rank: int) -> _Triples:
    U, S, Vh = torch.linalg.svd(dense, full_matrices=False)
    return U[:, :rank], S[:rank], Vh[:rank]


def _tolerance(dense: Tensor) -> float:
    return max(dense.shape) * torch.finfo(dense.dtype).eps


def _numerical_rank(S: Tensor, dense: Tensor) -> int:
    return max(1, int((S > S.max() * _tolerance(dense)).sum()))


def _fix_signs(U: Tensor, Vh: Tensor) -> tuple[Tensor, Tensor]:
    largest = U.abs().argmax(dim=0)
    signs = torch.where(U.gather(0, largest[None]).squeeze(0) < 0, -1.0, 1.0).to(U.dtype)
    return U * signs, Vh * signs[:, None]
