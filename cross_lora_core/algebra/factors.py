"""The two values the algebra works on: a low-rank update and a truncated SVD."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LoraFactors", "SpectralFactors", "working_dtype"]


def working_dtype(tensor: Tensor) -> torch.dtype:
    """float64 stays float64; everything else is computed in float32."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


@dataclass(frozen=True, eq=False)
class LoraFactors:
    """A low-rank update, `delta_weight = scaling * lora_B @ lora_A`; the product is never formed.

    Attributes:
        lora_A: [rank, d_in].
        lora_B: [d_out, rank].
        scaling: `lora_alpha / rank`, or `lora_alpha / sqrt(rank)` with rsLoRA.

    Raises:
        ValueError: the factors do not multiply.
    """

    lora_A: Tensor
    lora_B: Tensor
    scaling: float = 1.0

    def __post_init__(self) -> None:
        if self.lora_A.ndim != 2 or self.lora_B.ndim != 2 or self.lora_A.shape[0] != self.lora_B.shape[1]:
            raise ValueError(
                "expected lora_A [rank, d_in] and lora_B [d_out, rank], "
                f"got {list(self.lora_A.shape)} and {list(self.lora_B.shape)}"
            )

    @property
    def rank(self) -> int:
        """Columns of lora_B; an upper bound of the update's rank."""
        return int(self.lora_A.shape[0])

    @property
    def d_in(self) -> int:
        """Width the update reads."""
        return int(self.lora_A.shape[1])

    @property
    def d_out(self) -> int:
        """Width the update writes."""
        return int(self.lora_B.shape[0])

    def folded(self) -> LoraFactors:
        """The same update with scaling 1, in the working precision; itself where it is that already."""
        dtype = working_dtype(self.lora_B)
        if self.scaling == 1.0 and self.lora_A.dtype == self.lora_B.dtype == dtype:
            return self
        return LoraFactors(self.lora_A.to(dtype), self.lora_B.to(dtype) * self.scaling)


@dataclass(frozen=True, eq=False)
class SpectralFactors:
    """A truncated SVD, `W ~= U diag(S) Vh` (Eq. 1-2).

    Attributes:
        U: [d_out, k], orthonormal columns.
        S: [k], descending.
        Vh: [k, d_in], orthonormal rows.
        energy: share of `||W||_F^2` in `S`, measured against W itself; 1 for a zero weight.
    """

    U: Tensor
    S: Tensor
    Vh: Tensor
    energy: float

    @property
    def rank(self) -> int:
        """Number of singular triples kept, k."""
        return int(self.S.shape[0])
