"""What a transport has to beat: copying, resampling, and the controls `zero` and `random`."""

from __future__ import annotations

import torch
from torch import Tensor

from cross_lora_core.algebra.factors import LoraFactors
from cross_lora_core.algebra.measures import frobenius_norm
from cross_lora_core.algebra.transport import require_widths

__all__ = ["copy", "interpolate", "random_like", "zero"]


def copy(update: LoraFactors, d_out: int, d_in: int) -> LoraFactors:
    """The update as it is.

    Raises:
        WidthMismatch: it does not fit a `d_out x d_in` module.
    """
    require_widths(update, d_out, d_in)
    return update.folded()


def interpolate(update: LoraFactors, d_out: int, d_in: int) -> LoraFactors:
    """Rows of B and columns of A resampled linearly to the target's widths (the paper's Table 3 baseline)."""
    plain = update.folded()
    return LoraFactors(_resample(plain.lora_A, d_in), _resample(plain.lora_B.T, d_out).T.contiguous())


def _resample(rows: Tensor, width: int) -> Tensor:
    if rows.shape[1] == width:
        return rows
    return torch.nn.functional.interpolate(rows[None], size=width, mode="linear", align_corners=True)[0]


def zero(update: LoraFactors, d_out: int, d_in: int) -> LoraFactors:
    """No update, of the same rank: the control that shows the instrument is neutral."""
    plain = update.folded()
    return LoraFactors(plain.lora_A.new_zeros(update.rank, d_in), plain.lora_B.new_zeros(d_out, update.rank))


def random_like(
    update: LoraFactors, d_out: int, d_in: int, seed: int, *, input_seed: int | None = None
) -> LoraFactors:
    """A random update of the same rank and the same Frobenius norm of the product.

    Drawn on the CPU, so that a seed means the same on every device.

    Args:
        update: what it resembles.
        d_out: rows of the result.
        d_in: columns of the result.
        seed: of both factors.
        input_seed: of lora_A, where several updates shall have the same one, as slices of a fused module do.
    """
    plain = update.folded()
    generator = torch.Generator().manual_seed(seed)
    shared = generator if input_seed is None else torch.Generator().manual_seed(input_seed)
    lora_A = torch.randn(update.rank, d_in, generator=shared).to(plain.lora_A)
    lora_B = torch.randn(d_out, update.rank, generator=generator).to(plain.lora_B)
    drawn = LoraFactors(lora_A, lora_B)
    return LoraFactors(lora_A, lora_B * (frobenius_norm(plain) / frobenius_norm(drawn)))
