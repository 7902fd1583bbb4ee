"""Matrices built to a property."""

from __future__ import annotations

import torch
from torch import Tensor

from cross_lora_core.algebra import LoraFactors


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def orthogonal(size: int, seed: int, columns: int | None = None) -> Tensor:
    """Orthonormal columns, float64 [size, columns]."""
    Q, R = torch.linalg.qr(torch.randn(size, size, generator=generator(seed), dtype=torch.float64))
    return (Q * torch.sign(torch.diagonal(R)))[:, :columns]


def with_spectrum(d_out: int, d_in: int, spectrum: Tensor, seed: int) -> Tensor:
    """A matrix with these singular values, float64."""
    k = len(spectrum)
    return orthogonal(d_out, seed, k) * spectrum.double() @ orthogonal(d_in, seed + 1, k).T


def slowly_decaying(d_out: int, d_in: int, seed: int) -> Tensor:
    """Like a real weight: half the energy sits far down the spectrum; all singular values distinct."""
    k = min(d_out, d_in)
    return with_spectrum(d_out, d_in, torch.linspace(1.0, 0.2, k) ** 1.5, seed)


def random_update(d_out: int, d_in: int, rank: int, seed: int, scaling: float = 1.0) -> LoraFactors:
    """Gaussian factors, float64."""
    drawn = generator(seed)
    lora_A = torch.randn(rank, d_in, generator=drawn, dtype=torch.float64)
    lora_B = torch.randn(d_out, rank, generator=drawn, dtype=torch.float64)
    return LoraFactors(lora_A, lora_B, scaling)
