"""The obvious way: dense float64 matrices, no trick. What the algebra is compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from cross_lora_core.algebra import LoraFactors, SpectralFactors


def dense(update: LoraFactors) -> Tensor:
    """The update multiplied out."""
    return update.scaling * (update.lora_B.double() @ update.lora_A.double())


def projector(basis: Tensor) -> Tensor:
    """Onto the span of orthonormal columns."""
    return basis.double() @ basis.double().T


def truncated(weight: Tensor, rank: int) -> Tensor:
    """Best approximation of a rank."""
    U, S, Vh = torch.linalg.svd(weight.double(), full_matrices=False)
    return (U[:, :rank] * S[:rank]) @ Vh[:rank]


def inside(update: Tensor, factors: SpectralFactors) -> Tensor:
    """The part of an update within the spans of a factorization."""
    return projector(factors.U) @ update @ projector(factors.Vh.T)
