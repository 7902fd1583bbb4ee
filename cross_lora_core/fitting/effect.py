"""Method `effect`: make the target's residual stream change as the adapter changes the source's.

Nothing of the update's matrix is carried over, only what it does. On strings the adapted source writes
itself, take the change `h'_s(k) - h_s(k)` of the source's stream at boundary k; carry it over by `M_l`, the
ridge regression of the target's stream on the source's (`fitting.stream_moments`); then walk up the target's
layers and fit, in closed form, a low-rank update of each layer's down projection so that with all updates
below in place the stream after the layer changes by `M_l (h'_s - h_s)`. Fitting what is still missing keeps
errors from piling up, and neither widths, depths, heads nor tokenizers have to agree. No gradient is taken
and no data of the user is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cross_lora_core import algebra
from cross_lora_core.algebra import CentredMoments, LoraFactors
from cross_lora_core.fitting.sides import EffectSide
from cross_lora_core.fitting.stream_moments import position_weights
from cross_lora_core.migration import Landing, ModuleMeasure, Projected
from cross_lora_core.models import Role
from cross_lora_core.responses import (
    Frontier,
    PairedBatch,
    TokenBatch,
    layer_paths,
    pair_batches,
    with_updates,
)

__all__ = ["EffectFit", "EffectOptions", "fit_effect"]

HELD_OUT = 4
"""Every so many-th string is held out of the fit; update strengths are chosen on it."""

_Key = tuple[int, Role]


@dataclass(frozen=True)
class EffectOptions:
    """How updates are fitted.

    Attributes:
        rank: of each update.
        ridge: of the updates, in units of the mean diagonal of their inputs' second moments.
        map_ridge: of the maps between residual streams, likewise.
    """

    rank: int = 16
    ridge: float = 0.1
    map_ridge: float = 0.001


@dataclass(frozen=True, eq=False)
class EffectFit:
    """What a fit of some target layers found.

    Attributes:
        projected: the update of each layer's down projection.
        positions: pairs of responses it rests on, those held out included.
    """

    projected: dict[_Key, Projected]
    positions: int


def fit_effect(
    source: EffectSide,
    target: EffectSide,
    adapter: Path,
    strings: Sequence[str],
    landings: Sequence[Landing],
    moments: Mapping[int, CentredMoments],
    below: Mapping[_Key, LoraFactors],
    options: EffectOptions,
) -> EffectFit:
    """Fit the updates of consecutive target layers.

    Args:
        source: the base the adapter was trained on; another object in memory than the target.
        target: the base to fit.
        adapter: the adapter's folder, as PEFT loads it.
        strings: what both are run on.
        landings: consecutive ones of `effect_landings`.
        moments: of both streams over other strings, by target layer; the maps are fitted from them and
            from those of these strings, but for every `HELD_OUT`-th.
        below: updates of every layer below the first of them.
        options: how.

    Raises:
        ValueError: the strings have no position both tokenisations share.
    """
    batches = tuple(pair_batches(source.loaded, target.loaded, strings))
    if not batches:
        raise ValueError("expected strings with positions that both tokenisations share")
    held_out = torch.cat([_held_out(batch.target) for batch in batches]).to(target.loaded.device)
    stream = _wanted(source, target, adapter, batches, landings, ~held_out, moments, options.map_ridge)
    projected = _walk(target, [one.target for one in batches], landings, stream, held_out, below, options)
    return EffectFit(projected, len(held_out))


@dataclass(frozen=True, eq=False)
class _Aim:
    """The stream wanted after a layer, [positions, d_t], and how much each position counts, [positions]."""

    stream: Tensor
    weights: Tensor


def _wanted(
    source: EffectSide,
    target: EffectSide,
    adapter: Path,
    batches: Sequence[PairedBatch],
    landings: Sequence[Landing],
    fitted: Tensor,
    moments: Mapping[int, CentredMoments],
    map_ridge: float,
) -> dict[int, _Aim]:
    """By target layer, what its end should become."""
    ours = [one.source_layer + 1 for one in landings]
    before = _boundaries(source, [one.source for one in batches], ours)
    with source.loaded.with_adapter(adapter):
        after = _boundaries(source, [one.source for one in batches], ours)
    theirs = _boundaries(target, [one.target for one in batches], [one.target_layer + 1 for one in landings])
    aims = {}
    for one in landings:
        plain, rows = before[one.source_layer + 1], theirs[one.target_layer + 1]
        weights, pairs = position_weights(rows), deepcopy(moments[one.target_layer])
        pairs.add(plain[fitted], rows[fitted], weights[fitted])
        M = algebra.ridge_map(pairs.about_means(), map_ridge).float()
        aims[one.target_layer] = _Aim(rows + (after[one.source_layer + 1] - plain) @ M.T, weights)
    return aims


def _boundaries(side: EffectSide, batches: Sequence[TokenBatch], wanted: Sequence[int]) -> dict[int, Tensor]:
    found = [side.boundaries(one, wanted) for one in batches]
    return {number: torch.cat([one[number] for one in found]) for number in set(wanted)}


def _held_out(batch: TokenBatch) -> Tensor:
    """Which kept positions belong to strings that nothing is fitted on."""
    return (batch.kept // batch.ids.shape[1]) % HELD_OUT == 0


def _walk(
    target: EffectSide,
    batches: Sequence[TokenBatch],
    landings: Sequence[Landing],
    aims: Mapping[int, _Aim],
    held_out: Tensor,
    below: Mapping[_Key, LoraFactors],
    options: EffectOptions,
) -> dict[_Key, Projected]:
    """Layer by layer from the bottom: look, fit what is missing, put it in place, go on."""
    loaded, base = target.loaded, target.base
    paths = layer_paths(base)
    with with_updates(loaded, {base.linear(*key).module: update for key, update in below.items()}):
        frontier = Frontier(loaded, batches, [paths[one.target_layer] for one in landings])
    projected = {}
    for one in landings:
        key = (one.target_layer, one.role)
        module = base.linear(*key).module
        run, aim = frontier.look(module), aims[one.target_layer]
        _, gain = base.read_gains(*key)
        fit = algebra.fit_writer(
            run.inputs, run.outputs, aim.stream - run.stream, aim.weights, held_out,
            gain=None if gain is None else gain.to(loaded.device), rank=options.rank, ridge=options.ridge,
        )  # fmt: skip
        with with_updates(loaded, {module: fit.update}):
            frontier.advance()
        projected[key] = Projected(fit.update, ModuleMeasure.fitted(one, fit.update, fit.explained))
    return projected
