"""Move between a weight's own coordinates and those of the normalised residual stream.

A norm's gain g sits between the stream and the weights that read it, so the
stream sees `W diag(g)`, and an update sees the same. Working on the folded
weight makes one token's direction comparable between two bases; the result is
unfolded with the target's gains.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cross_lora_core.algebra.factors import LoraFactors, working_dtype

__all__ = ["fold_gains", "fold_weight", "fold_weight_", "unfold_gains"]

DEAD = 1e-6
"""A gain below this share of the largest one lets nothing through; its inverse is taken as 0."""


def fold_weight(weight: Tensor, input_gain: Tensor | None, output_gain: Tensor | None) -> Tensor:
    """`diag(output_gain) W diag(input_gain)`, [d_out, d_in], a new tensor; None stands for ones."""
    return fold_weight_(weight.to(working_dtype(weight), copy=True), input_gain, output_gain)


def fold_weight_(weight: Tensor, input_gain: Tensor | None, output_gain: Tensor | None) -> Tensor:
    """The same in the memory of a float32 or float64 weight, which it returns."""
    if input_gain is not None:
        weight.mul_(input_gain.to(weight))
    if output_gain is not None:
        weight.mul_(output_gain.to(weight)[:, None])
    return weight


def fold_gains(update: LoraFactors, input_gain: Tensor | None, output_gain: Tensor | None) -> LoraFactors:
    """`diag(output_gain) delta diag(input_gain)`, scaling folded in."""
    plain = update.folded()
    lora_A = plain.lora_A if input_gain is None else plain.lora_A * input_gain.to(plain.lora_A)
    lora_B = plain.lora_B if output_gain is None else output_gain.to(plain.lora_B)[:, None] * plain.lora_B
    return LoraFactors(lora_A, lora_B)


def unfold_gains(update: LoraFactors, input_gain: Tensor | None, output_gain: Tensor | None) -> LoraFactors:
    """The update whose folded form this is; coordinates behind a dead gain become 0, not infinity."""
    return fold_gains(update, _inverse(input_gain), _inverse(output_gain))


def _inverse(gain: Tensor | None) -> Tensor | None:
    if gain is None:
        return None
    alive = gain.abs() > DEAD * gain.abs().max()
    return torch.where(alive, 1.0 / torch.where(alive, gain, torch.ones_like(gain)), torch.zeros_like(gain))
