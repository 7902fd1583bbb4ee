"""Fit an update of a weight that writes to the residual stream, so that a wanted change appears there.

Where the module's output `y = W x` is added to the stream as it is, the wanted change is regressed on `x`.
Gemma 2 and 3 add `g * y / rms(y)` instead. There the fit aims at the normalised output `u = y / rms(y)`
in the metric of what reaches the stream: dividing by the gain alone would let coordinates of
small gain, which hardly matter, decide the norm of everything. With `D = g^2 + FLOOR mean(g^2)` the aim is
`u + g missing / D`, brought back to the norm every `u` has, and errors count by `D`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cross_lora_core.algebra.factors import LoraFactors
from cross_lora_core.algebra.reduced_rank import reduced_rank_ridge
from cross_lora_core.algebra.ridge import Moments

__all__ = ["FittedUpdate", "fit_writer"]

FLOOR = 0.3
"""Share of the mean squared gain below which a coordinate's gain does not count as smaller."""

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Tried on held-out positions: an update that does not generalise is weakened or left out."""

EPSILON = 1e-6


@dataclass(frozen=True, eq=False)
class FittedUpdate:
    """An update and how well it does on positions it was not fitted on.

    Attributes:
        update: scaling 1; zero where no strength helped.
        explained: 1 - weighted squared error over that of no update; at least 0.
    """

    update: LoraFactors
    explained: float


def fit_writer(
    inputs: Tensor,
    outputs: Tensor,
    missing: Tensor,
    weights: Tensor,
    held_out: Tensor,
    *,
    gain: Tensor | None,
    rank: int,
    ridge: float,
) -> FittedUpdate:
    """The update of at most `rank` after which the module writes what is missing.

    Args:
        inputs: [n, d_in], what the module reads.
        outputs: [n, d_out], what it gives now.
        missing: [n, d_out], the change of the stream that is wanted.
        weights: [n], how much a position counts.
        held_out: bool [n], positions the strength is chosen on and nothing is fitted on.
        gain: [d_out], multipliers of a root-mean-square norm applied to the output; None without one.
        rank: of the update.
        ridge: in units of the mean diagonal of the inputs' second moments.
    """
    aimed = missing if gain is None else _aim(outputs, missing, gain)
    metric = torch.ones_like(missing[0]) if gain is None else _metric(gain).sqrt()
    size = torch.ones_like(weights) if gain is None else _rms(outputs)[:, 0]
    fitted = ~held_out
    moments = Moments(inputs.shape[1], missing.shape[1], inputs.device)
    moments.add(inputs[fitted], (aimed * metric)[fitted], (weights / size**2)[fitted])
    found = reduced_rank_ridge(moments, ridge, rank)
    update = LoraFactors(found.lora_A, found.lora_B / metric[:, None])
    return _strengthened(
        update, inputs[held_out], outputs[held_out], missing[held_out], weights[held_out], gain
    )


def _strengthened(
    update: LoraFactors,
    inputs: Tensor,
    outputs: Tensor,
    missing: Tensor,
    weights: Tensor,
    gain: Tensor | None,
) -> FittedUpdate:
    """The update at the strength that explains most of what is missing at these positions."""
    change = (inputs @ update.lora_A.T) @ update.lora_B.T
    before = _added(outputs, gain)
    whole = float((weights * missing.pow(2).sum(1)).sum())

    def explained(strength: float) -> float:
        left = missing - (_added(outputs + strength * change, gain) - before)
        return 1.0 - float((weights * left.pow(2).sum(1)).sum()) / whole if whole > 0 else 0.0

    best = max(STRENGTHS, key=explained)
    return FittedUpdate(LoraFactors(update.lora_A, best * update.lora_B), explained(best))


def _aim(outputs: Tensor, missing: Tensor, gain: Tensor) -> Tensor:
    """The change of the raw output after which the normalised one is what is wanted."""
    size = _rms(outputs)
    unit = outputs / size
    wanted = unit + gain * missing / _metric(gain)
    return (wanted / _rms(wanted) - unit) * size


def _metric(gain: Tensor) -> Tensor:
    squared = gain**2
    return squared + FLOOR * squared.mean()


def _added(outputs: Tensor, gain: Tensor | None) -> Tensor:
    """What reaches the stream of the module's output."""
    return outputs if gain is None else gain * outputs / _rms(outputs)


def _rms(rows: Tensor) -> Tensor:
    return (rows.pow(2).mean(1, keepdim=True) + EPSILON).sqrt()
