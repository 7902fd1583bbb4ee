"""Carry an update from one base to another through singular bases, factor by factor (Eq. 7).

Read literally, Eq. 7 projects the update onto the target's subspace and the
source base drops out; it exists for equal widths only (`subspace`). The reading
that exists for every pair of widths applies the transforms to the update:
`delta_t = U_t D (U_s^T delta_s V_s) D'^T V_t^T` (`cross_lora`, Algorithm 1 lines
9-13). None of these forms a `d_out x d_in` product; the rank stays the update's
(or twice it, for `subspace_and_null`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from cross_lora_core.algebra.alignment import Alignment
from cross_lora_core.algebra.factors import LoraFactors, SpectralFactors

__all__ = [
    "WidthMismatch",
    "coordinates",
    "cross_lora",
    "from_coordinates",
    "subspace",
    "subspace_and_null",
]


class WidthMismatch(ValueError):
    """The method exists only between modules of the same shape."""


def require_widths(update: LoraFactors, d_out: int, d_in: int) -> None:
    """Raise WidthMismatch unless the update fits a `d_out x d_in` module."""
    if (update.d_out, update.d_in) != (d_out, d_in):
        raise WidthMismatch(f"expected an update of {d_out}x{d_in}, got {update.d_out}x{update.d_in}")


def cross_lora(
    update: LoraFactors, source: SpectralFactors, target: SpectralFactors, alignment: Alignment
) -> LoraFactors:
    """`B_t = U_t D (U_s^T B_s)`, `A_t = ((A_s V_s) D'^T) V_t^T`.

    Args:
        update: of the source weight, [d_out_s, d_in_s].
        source: factors of the source weight.
        target: factors of the target weight.
        alignment: maps between the two.

    Returns:
        An update of the target weight, [d_out_t, d_in_t], of the same rank, with scaling 1.

    Raises:
        WidthMismatch: the update does not fit the source weight.
    """
    return from_coordinates(coordinates(update, source), target, alignment)


def coordinates(update: LoraFactors, factors: SpectralFactors) -> LoraFactors:
    """`U^T delta V` as factors [r, k] and [k, r] with scaling 1: all of it that a weight's factors see.

    Raises:
        WidthMismatch: the update does not fit the weight.
    """
    require_widths(update, factors.U.shape[0], factors.Vh.shape[1])
    plain = update.folded()
    Vh, U = factors.Vh.to(plain.lora_A), factors.U.to(plain.lora_B)
    return LoraFactors(plain.lora_A @ Vh.T, U.T @ plain.lora_B)


def from_coordinates(inside: LoraFactors, target: SpectralFactors, alignment: Alignment) -> LoraFactors:
    """The update of the target weight whose coordinates in the source's factors were `inside`."""
    lora_B = target.U @ (alignment.output @ inside.lora_B)
    lora_A = (inside.lora_A @ alignment.input.T) @ target.Vh
    return LoraFactors(lora_A, lora_B)


def subspace(update: LoraFactors, target: SpectralFactors) -> LoraFactors:
    """Eq. 7 read literally, `U_t U_t^T delta V_t V_t^T`; equals LoRA-X's transfer.

    Raises:
        WidthMismatch: source and target widths differ.
    """
    require_widths(update, target.U.shape[0], target.Vh.shape[1])
    plain = update.folded()
    return LoraFactors(_onto(plain.lora_A.T, target.Vh.T).T, _onto(plain.lora_B, target.U))


def subspace_and_null(update: LoraFactors, source: SpectralFactors, target: SpectralFactors) -> LoraFactors:
    """ProLoRA's split: the source-subspace part onto the target's subspace, the rest onto its null space.

    `U_t U_t^T P V_t V_t^T + (I - U_t U_t^T) N (I - V_t V_t^T)` with
    `P = U_s U_s^T delta V_s V_s^T` and `N = (I - U_s U_s^T) delta (I - V_s V_s^T)`.
    The rank doubles.

    Raises:
        WidthMismatch: source and target widths differ.
    """
    require_widths(update, target.U.shape[0], target.Vh.shape[1])
    require_widths(update, source.U.shape[0], source.Vh.shape[1])
    plain = update.folded()
    inside = subspace(subspace(plain, source), target)
    columns, rows = plain.lora_B, plain.lora_A.T
    for one in (source, target):
        columns = columns - _onto(columns, one.U)
        rows = rows - _onto(rows, one.Vh.T)
    return LoraFactors(torch.cat([inside.lora_A, rows.T]), torch.cat([inside.lora_B, columns], dim=1))


def _onto(columns: Tensor, basis: Tensor) -> Tensor:
    return basis @ (basis.T @ columns)
