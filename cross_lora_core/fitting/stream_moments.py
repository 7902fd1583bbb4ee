"""Second moments of the residual streams of two bases: what the maps of method `effect` are fitted from.

At the end of every target layer, of the target's stream against the source's at the end of the layer it is
compared with, at positions that mean the same. A position counts by the inverse squared norm of the target's
stream, so that the few whose norm is huge do not decide everything. The moments belong to the pair of bases
and serve every adapter, which adds those of its own strings: the more strings, the better the maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cross_lora_core.algebra import CentredMoments
from cross_lora_core.fitting.sides import EffectSide
from cross_lora_core.migration import Landing
from cross_lora_core.responses import pair_batches

__all__ = ["position_weights", "stream_moments"]


def stream_moments(
    source: EffectSide, target: EffectSide, strings: Sequence[str], landings: Sequence[Landing]
) -> dict[int, CentredMoments]:
    """Moments of every landing by its target layer; the streams of one batch are held at a time.

    Args:
        source: the base that adapters are for, none on; another object in memory than the target.
        target: the base they go to.
        strings: what both are run on.
        landings: of `effect_landings`.

    Raises:
        ValueError: the strings have no position both tokenisations share.
    """
    found: dict[int, CentredMoments] = {}
    for batch in pair_batches(source.loaded, target.loaded, strings):
        ours = source.boundaries(batch.source, [one.source_layer + 1 for one in landings])
        theirs = target.boundaries(batch.target, [one.target_layer + 1 for one in landings])
        for one in landings:
            x, y = ours[one.source_layer + 1], theirs[one.target_layer + 1]
            moments = found.setdefault(one.target_layer, CentredMoments(x.mean(0), y.mean(0)))
            moments.add(x, y, position_weights(y))
    if not found:
        raise ValueError("expected strings with positions that both tokenisations share")
    return found


def position_weights(stream: Tensor) -> Tensor:
    """How much each position counts, [n]: the inverse squared norm of its stream [n, d]."""
    return 1.0 / stream.pow(2).sum(1).clamp_min(torch.finfo(torch.float32).tiny)
