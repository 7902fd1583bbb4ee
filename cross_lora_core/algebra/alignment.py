"""Pair the singular vectors of two bases by something that means the same in both (Eq. 3-6, made anchored).

A singular pair is defined up to a joint sign, and inside a cluster of equal
singular values up to a rotation, so that pairing the i-th with the i-th is
arbitrary. The side of a weight that touches the residual stream is anchored by
embedding rows of tokens both vocabularies contain; the inner side (heads,
neurons) follows through the weights.

Why that is right for a base that was only rewritten: let `W_t = O W_s Q^T` with
orthogonal O, Q. Then `U_t = O U_s R` and `V_t = Q V_s R` with an orthogonal R
that commutes with `diag(S)`. The anchored side gives `(E_t V_t)^T (E_s V_s) =
R^T (E_s V_s)^T (E_s V_s)`, whose polar factor is `R^T`; the inner side gives
`polar(S R^T S) = R^T`. So `V_t R^T V_s^T = Q V_s V_s^T`: the known map, on the
span that was kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cross_lora_core.algebra.factors import SpectralFactors

__all__ = ["Alignment", "align", "polar"]


@dataclass(frozen=True, eq=False)
class Alignment:
    """The maps D and D' between the kept singular vectors of two weights.

    Attributes:
        output: [k_target, k_source], from source to target coordinates of the left vectors.
        input: [k_target, k_source], the same for the right vectors.
    """

    output: Tensor
    input: Tensor


def align(
    source: SpectralFactors,
    target: SpectralFactors,
    *,
    input_anchor: tuple[Tensor, Tensor] | None = None,
    output_anchor: tuple[Tensor, Tensor] | None = None,
) -> Alignment:
    """Orthogonal maps between the singular bases of a source and a target weight.

    Args:
        source: factors of the source weight.
        target: factors of the target weight.
        input_anchor: rows that mean the same in both bases, in the coordinates the weights
            read: [n, d_in of the source] and [n, d_in of the target].
        output_anchor: the same in the coordinates the weights write.

    Returns:
        With one anchor, the other side follows through the weights: the D that makes
        `P_U W_s` and `W_t P_V` closest is `polar(diag(S_t) D' diag(S_s))`, and the
        other way round. With both, each side has its own. With none, vectors are
        paired by index, as the paper does.

    Raises:
        ValueError: an anchor's rows do not fit the factors.
    """
    inner_in = None if input_anchor is None else _anchored(input_anchor, source.Vh.T, target.Vh.T)
    inner_out = None if output_anchor is None else _anchored(output_anchor, source.U, target.U)
    if inner_in is None and inner_out is None:
        pairs = torch.eye(target.rank, source.rank, dtype=source.S.dtype, device=source.S.device)
        return Alignment(pairs, pairs.clone())
    if inner_in is None:
        assert inner_out is not None
        inner_in = _through_weights(inner_out, source, target)
    if inner_out is None:
        inner_out = _through_weights(inner_in, source, target)
    return Alignment(output=inner_out, input=inner_in)


def polar(matrix: Tensor) -> Tensor:
    """The partial isometry closest to a matrix: `U Vh` of its SVD, null directions left out.

    Directions whose singular value is rounding noise have no best partner; they
    are mapped to zero instead of to an arbitrary vector, so the result is determined.
    """
    U, S, Vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    if S.numel() == 0 or float(S[0]) == 0.0:
        return torch.zeros_like(matrix)
    keep = S > S[0] * max(matrix.shape) * torch.finfo(matrix.dtype).eps
    isometry: Tensor = U[:, keep] @ Vh[keep]
    return isometry.to(matrix.dtype)


def _anchored(anchor: tuple[Tensor, Tensor], source: Tensor, target: Tensor) -> Tensor:
    ours, theirs = (rows.to(source.dtype) for rows in anchor)
    if len(ours) != len(theirs) or ours.shape[1] != source.shape[0] or theirs.shape[1] != target.shape[0]:
        raise ValueError(
            f"expected anchor rows [n, {source.shape[0]}] and [n, {target.shape[0]}], "
            f"got {list(ours.shape)} and {list(theirs.shape)}"
        )
    return polar((theirs @ target).T @ (ours @ source))


def _through_weights(known: Tensor, source: SpectralFactors, target: SpectralFactors) -> Tensor:
    """`polar(diag(S_t) D diag(S_s))` in float64, where rounding of D is graded by S like the matrix.

    Directions of small singular values therefore keep their partners, which float32
    would cut off as noise. Scaled to unit largest value, so that tiny weights do not vanish.
    """
    tiny = torch.finfo(target.S.dtype).tiny
    left = (target.S / target.S.max().clamp_min(tiny)).double()
    right = (source.S / source.S.max().clamp_min(tiny)).double()
    return polar(left[:, None] * known.double() * right).to(known.dtype)
