"""How much of a base's weights a rank keeps (the paper's Table 1 and Appendix C, which assume a decay)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cross_lora_core.experiments.results import Energy
from cross_lora_core.models import BaseModel

__all__ = ["energies_kept"]


def energies_kept(base: BaseModel, ranks: Sequence[int], device: torch.device) -> dict[int, Energy]:
    """Share of the squared norm in the first singular values of every weight, by rank.

    Args:
        base: whose weights are read one at a time, as they are (no gains folded in).
        ranks: singular values kept.
        device: that they are computed on.
    """
    shares: dict[tuple[int, str], list[float]] = {}
    for layer in range(base.layers):
        for role in base.roles:
            values = torch.linalg.svdvals(base.read_weight(layer, role).to(device).float())
            shares[layer, str(role)] = _shares(values, ranks)
    return {
        rank: _energy({module: found[number] for module, found in shares.items()})
        for number, rank in enumerate(ranks)
    }


def _shares(values: Tensor, ranks: Sequence[int]) -> list[float]:
    squared = values.double().square()
    return [float(squared[:rank].sum() / squared.sum()) for rank in ranks]


def _energy(kept: dict[tuple[int, str], float]) -> Energy:
    layer, role = least = min(kept, key=lambda module: kept[module])
    by_role = {one: [x for (_, own), x in kept.items() if own == one] for one in sorted({r for _, r in kept})}
    return Energy(
        mean=_mean(list(kept.values())),
        least=kept[least],
        least_module=f"layer {layer}, {role}",
        roles={one: _mean(values) for one, values in by_role.items()},
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
