"""Signed matching of feed-forward neurons, for the output maps of gate and up in method `probe`.

What gate and up write has no basis but its own: a nonlinearity follows. And it has only as many directions as
the stream is wide, so that least squares on responses would leave out most of what an adapter writes. Each
neuron of the target takes after one of the source instead, as far as the two go together on probes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cross_lora_core.algebra import Correlations, match_greedily
from cross_lora_core.models import Role

__all__ = ["NeuronMatch", "match_neurons", "neuron_map"]


@dataclass(frozen=True, eq=False)
class NeuronMatch:
    """Pairs of neurons.

    Attributes:
        source: int64 [pairs].
        target: int64 [pairs], each once.
        sign: [pairs], -1 where a gated neuron gives what the other gives with the other sign.
    """

    source: Tensor
    target: Tensor
    sign: Tensor


def match_neurons(found: Mapping[Role, Correlations]) -> NeuronMatch:
    """Match neurons by all that is known of them, best first.

    Only a neuron with a gate can have the other sign: then up and what down reads are turned, the gate not.

    Args:
        found: of the outputs of up and, where both bases have one, gate, and of the inputs of down.
    """
    known = {role: one.coefficients() for role, one in found.items()}
    signed = Role.gate in known
    scores = sum(one.abs() if signed and role is not Role.gate else one for role, one in known.items())
    assert isinstance(scores, Tensor)
    source, target = match_greedily(scores)
    turned = signed & (known[Role.down][source, target] < 0)
    return NeuronMatch(source, target, torch.where(turned, -1.0, 1.0).to(scores))


def neuron_map(found: Correlations, match: NeuronMatch, *, turned: bool) -> tuple[Tensor, float]:
    """G_out, one entry a matched neuron: the slope of the target's output on the source's, or 0.

    Args:
        found: of the outputs of one role.
        match: of the neurons.
        turned: this role's output has the neuron's sign.

    Returns:
        G, float64 [neurons of the target, of the source], and the share of the variance of matched
        neurons that it does not explain.
    """
    sign = match.sign if turned else torch.ones_like(match.sign)
    agreement = (found.coefficients()[match.source, match.target] * sign).clamp_min(0.0)
    ours, theirs = found.spreads
    slope = torch.where(ours[match.source] > 0, theirs[match.target] / ours[match.source], 0.0)
    G = torch.zeros(len(theirs), len(ours)).to(ours)
    G[match.target, match.source] = sign * agreement * slope
    return G, 1.0 - float(agreement.square().mean())
