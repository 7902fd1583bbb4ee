"""Numbers that say what a factorization or a transport kept; updates are never formed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cross_lora_core.algebra.factors import LoraFactors, SpectralFactors, working_dtype
from cross_lora_core.algebra.transport import coordinates

__all__ = [
    "cosine",
    "frobenius_norm",
    "inner_product",
    "principal_angles",
    "retained_energy",
    "row_cosines",
    "subspace_capture",
]

CANCELLED = 0.1
"""A product of Gram matrices below this share of the product of their norms has lost digits."""

SMALLEST, LARGEST = 1e-20, 1e30
"""Norms of Gram matrices that float32 holds with room on both sides."""


def inner_product(first: LoraFactors, second: LoraFactors) -> float:
    """`<delta_1, delta_2>_F = tr((A_1 A_2^T)^T (B_1^T B_2))`, both of the same shape."""
    inputs = first.lora_A.double() @ second.lora_A.double().T
    outputs = first.lora_B.double().T @ second.lora_B.double()
    return float((inputs * outputs).sum()) * first.scaling * second.scaling


def frobenius_norm(update: LoraFactors) -> float:
    """`||delta||_F`, by Gram matrices of the factors, or by triangular factors where those would cancel."""
    squared = _norm_by_grams(update)
    norm = _norm_by_qr(update) if squared is None else math.sqrt(squared)
    return abs(update.scaling) * norm


def _norm_by_grams(update: LoraFactors) -> float | None:
    """`||B A||_F^2 = <B^T B, A A^T>`; None where rounding could reach its sixth digit."""
    lora_A, lora_B = (one.to(working_dtype(one)) for one in (update.lora_A, update.lora_B))
    inputs, outputs = (lora_A @ lora_A.T).double(), (lora_B.T @ lora_B).double()
    squared = float((inputs * outputs).sum())
    sizes = float(torch.linalg.vector_norm(inputs)), float(torch.linalg.vector_norm(outputs))
    safe = all(SMALLEST < size < LARGEST for size in sizes) and squared > CANCELLED * sizes[0] * sizes[1]
    return squared if safe else None


def _norm_by_qr(update: LoraFactors) -> float:
    R_B = torch.linalg.qr(update.lora_B.double(), mode="r").R
    R_A = torch.linalg.qr(update.lora_A.T.double(), mode="r").R
    return float(torch.linalg.matrix_norm(R_B @ R_A.T))


def cosine(first: LoraFactors, second: LoraFactors) -> float:
    """Cosine of two updates of the same shape; 0 when one of them is zero."""
    norms = frobenius_norm(first) * frobenius_norm(second)
    return inner_product(first, second) / norms if norms > 0 else 0.0


def retained_energy(
    update: LoraFactors, factors: SpectralFactors, inside: LoraFactors | None = None
) -> float:
    """Share of `||delta||_F^2` inside `span(U) x span(V)`; 1 for a zero update, which loses nothing.

    Args:
        update: of the weight.
        factors: of the weight.
        inside: the update's `coordinates` in the factors, where they were computed already.
    """
    total = frobenius_norm(update) ** 2
    if total == 0:
        return 1.0
    inside = inside or coordinates(update, factors)
    return min(1.0, frobenius_norm(inside) ** 2 / total)


def principal_angles(first: Tensor, second: Tensor) -> Tensor:
    """Angles in radians between the spans of two orthonormal bases [d, k1] and [d, k2], ascending, float64.

    Small angles come from the sine, large ones from the cosine, so both are accurate.
    """
    first, second = first.double(), second.double()
    if first.shape[1] < second.shape[1]:
        first, second = second, first
    cosines = torch.linalg.svdvals(first.T @ second).clamp(0, 1)
    sines = torch.linalg.svdvals(second - first @ (first.T @ second)).clamp(0, 1).flip(0)
    return torch.where(cosines.square() > 0.5, torch.asin(sines), torch.acos(cosines))


def subspace_capture(basis: Tensor, reference: Tensor) -> float:
    """`||basis^T reference||_F^2 / k`: 1 when a basis [d, j] contains the reference [d, k]."""
    return float((basis.double().T @ reference.double()).square().sum()) / reference.shape[1]


def row_cosines(first: Tensor, second: Tensor) -> Tensor:
    """Cosines of corresponding rows of two matrices [n, d], float64 [n]; 0 where a row is zero.

    Rows of weights that were initialised apart give values around 0, with standard deviation
    `1 / sqrt(d)`; a copy with noise of relative size s gives about `1 / sqrt(1 + s^2)`.
    """
    return torch.nn.functional.cosine_similarity(first.double(), second.double(), dim=1)
