"""Linear maps between the responses of two bases, module by module: the coordinates of `probe`.

At positions that mean the same, what the source's module reads is predicted from what the
target's reads, `x_s ~ G_in x_t` (Eq. 4 on paired responses instead of raw singular vectors). What an update
writes is carried by `G_out`, which `fitting.maps` finds for each role in the coordinates that matter there.
An update then acts in the target as `G_out (B A) G_in`.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cross_lora_core.algebra import LoraFactors, frobenius_norm
from cross_lora_core.models import Role

__all__ = ["MapFit", "ModuleMaps", "carry", "input_site"]

STRONGEST = 32.0
"""An update's norm beside its weight's, at most, as a multiple of what it was on the source.

Where the target computes little of what an update reads, the update has to be many times as large; between
controlled bases a bound of 2 cost a third of what `probe` recovers, one of 8 a sixteenth.
"""


@dataclass(frozen=True)
class MapFit:
    """How well a module's maps predict held-out probes, and what bounds an update's strength.

    Attributes:
        input_ridge: chosen for G_in.
        input_error: its relative squared error on held-out probes; 1 is no better than nothing.
        output_ridge: chosen for G_out, of o and down, and of o for v; None for other roles.
        output_error: share of the target's stream on held-out probes that it does not predict; of q and k
            1 less the agreement of matched heads, of gate and up the share of the variance of matched neurons
            that is not explained, of v what is left of the effect on the stream.
        positions: pairs of responses the maps were fitted on.
        source_norm: Frobenius norm of the source weight.
        target_norm: of the target weight.
        copies: target layers that take their update from this source layer.
    """

    input_ridge: float
    input_error: float
    output_ridge: float | None
    output_error: float
    positions: int
    source_norm: float
    target_norm: float
    copies: int


@dataclass(frozen=True, eq=False)
class ModuleMaps:
    """The maps of one pair of modules.

    Attributes:
        input: G_in, [d_in of the source, d_in of the target].
        output: G_out, [d_out of the target, d_out of the source].
        fit: what is known about them.
    """

    input: Tensor
    output: Tensor
    fit: MapFit


def input_site(role: Role) -> Role:
    """The first role that reads the same tensor: q, k and v share one input, gate and up another."""
    return {Role.k: Role.q, Role.v: Role.q, Role.gate: Role.up}.get(role, role)


def carry(update: LoraFactors, maps: ModuleMaps) -> LoraFactors:
    """`B_t = G_out B_s`, `A_t = A_s G_in`, at a strength that depth and norm bound.

    A source layer that several target layers are mapped to acts once: each takes its part.
    The update is then at most `STRONGEST` times as large beside the target's weight as it was
    beside the source's; where norm gains are folded into weights, an exact map changes that ratio too.
    """
    plain = update.folded()
    reads, writes = maps.input.to(plain.lora_A), maps.output.to(plain.lora_B)
    moved = LoraFactors(plain.lora_A @ reads, writes @ plain.lora_B)
    norm = frobenius_norm(moved) / maps.fit.copies
    bound = STRONGEST * frobenius_norm(plain) * maps.fit.target_norm / maps.fit.source_norm
    share = min(1.0, bound / norm) if norm > 0 else 1.0
    return LoraFactors(moved.lora_A, moved.lora_B * (share / maps.fit.copies))
