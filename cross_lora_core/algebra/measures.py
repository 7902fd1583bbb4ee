"""Numbers that say what a factorization or a transport kept; updates are never formed."""

from __future__ import annotations

import torch
from torch import Tensor

from cross_lora_core.algebra.factors import LoraFactors, SpectralFactors

__all__ = [
    "cosine",
    "frobenius_norm",
    "inner_product",
    "principal_angles",
    "retained_energy",
    "row_cosines",
    "subspace_capture",
]


def inner_product(first: LoraFactors, second: LoraFactors) -> float:
    """`<delta_1, delta_2>_F = tr((A_1 A_2^T)^T (B_1^T B_2))`, both of the same shape."""
    inputs = first.lora_A.double() @ second.lora_A.double().T
    outputs = first.lora_B.double().T @ second.lora_B.double()
    return float((inputs * outputs).sum()) * first.scaling * second.scaling


def frobenius_norm(update: LoraFactors) -> float:
    """`||delta||_F`, by way of small triangular factors, so that nothing cancels."""
    R_B = torch.linalg.qr(update.lora_B.double(), mode="r").R
    R_A = torch.linalg.qr(update.lora_A.T.double(), mode="r").R
    return abs(update.scaling) * float(torch.linalg.matrix_norm(R_B @ R_A.T))


def cosine(first: LoraFactors, second: LoraFactors) -> float:
    """Cosine of two updates of the same shape; 0 when one of them is zero."""
    norms = frobenius_norm(first) * frobenius_norm(second)
    return inner_product(first, second) / norms if norms > 0 else 0.0


def retained_energy(update: LoraFactors, factors: SpectralFactors) -> float:
    """Share of `||delta||_F^2` inside `span(U) x span(V)`; 1 for a zero update, which loses nothing."""
    total = frobenius_norm(update) ** 2
    if total == 0:
        return 1.0
    inside = LoraFactors(
        update.lora_A @ factors.Vh.T.to(update.lora_A), factors.U.T.to(update.lora_B) @ update.lora_B
    )
    return min(1.0, (frobenius_norm(inside) * abs(update.scaling)) ** 2 / total)


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
