"""Change the rank of an update without forming it: QR of both factors, SVD of the small core."""

from __future__ import annotations

import torch
from torch import Tensor

from cross_lora_core.algebra.factors import LoraFactors

__all__ = ["balance", "rerank", "singular_values", "truncation_loss"]


def _core(update: LoraFactors) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Q_B [d_out, q], U, S, Vh of the core, and Q_A [d_in, p], with `delta = Q_B U diag(S) Vh Q_A^T`."""
    plain = update.folded()
    Q_B, R_B = torch.linalg.qr(plain.lora_B.double())
    Q_A, R_A = torch.linalg.qr(plain.lora_A.T.double())
    return Q_B, *torch.linalg.svd(R_B @ R_A.T, full_matrices=False), Q_A


def singular_values(update: LoraFactors) -> Tensor:
    """Singular values of the update, float64 [min(rank, d_out, d_in)], descending."""
    return _core(update)[2]


def rerank(update: LoraFactors, rank: int) -> LoraFactors:
    """The best update of another rank: exact with zero padding upwards, Eckart-Young downwards.

    Returns:
        Balanced factors with scaling 1, [rank, d_in] and [d_out, rank].

    Raises:
        ValueError: a rank below 1.
    """
    if rank < 1:
        raise ValueError(f"expected a rank of at least 1, got {rank}")
    Q_B, U, S, Vh, Q_A = _core(update)
    kept = min(rank, S.shape[0])
    root = S[:kept].sqrt()
    lora_A = (root[:, None] * Vh[:kept]) @ Q_A.T
    lora_B = (Q_B @ U[:, :kept]) * root
    dtype = update.folded().lora_A.dtype
    lora_A = torch.nn.functional.pad(lora_A, (0, 0, 0, rank - kept))
    lora_B = torch.nn.functional.pad(lora_B, (0, rank - kept))
    return LoraFactors(lora_A.to(dtype).contiguous(), lora_B.to(dtype).contiguous())


def truncation_loss(update: LoraFactors, rank: int) -> float:
    """Share of `||delta||_F^2` that `rerank` to this rank loses; 0 for a zero update."""
    energy = singular_values(update).square()
    total = float(energy.sum())
    return float(energy[rank:].sum()) / total if total > 0 else 0.0


def balance(update: LoraFactors) -> LoraFactors:
    """The same product with `||A||_F = ||B||_F` and scaling 1: both factors safe in float16."""
    plain = update.folded()
    norm_A, norm_B = (
        float(torch.linalg.vector_norm(one, dtype=torch.float64)) for one in (plain.lora_A, plain.lora_B)
    )
    if norm_A == 0 or norm_B == 0:
        return plain
    share = (norm_B / norm_A) ** 0.5
    return LoraFactors(plain.lora_A * share, plain.lora_B / share)
