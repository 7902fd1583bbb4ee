"""Fit the maps of method `probe`: both bases run over probes, and second moments of what they compute.

Nothing but the moments is kept; the ridge of every map is chosen on probes that it was not fitted on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from cross_lora_core.algebra import Moments, RidgeChoice, choose_ridge
from cross_lora_core.evaluation import LoadedBase
from cross_lora_core.migration import Landing, MapFit, ModuleMaps, input_site
from cross_lora_core.models import BaseModel, LinearSpec, Role
from cross_lora_core.responses import Responses, pair_batches, respond

__all__ = ["PairMoments", "fit_maps", "pair_moments"]

RIDGES = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""In units of the mean diagonal; the one that predicts held-out probes best is taken."""

_Key = tuple[int, Role]


class PairMoments:
    """Second moments of the responses of mapped modules, summed over probes.

    Attributes:
        inputs: by (target layer, input site), of x_t against x_s.
        outputs: by (target layer, role), of y_s against y_t.
    """

    def __init__(self) -> None:
        self.inputs: dict[_Key, Moments] = {}
        self.outputs: dict[_Key, Moments] = {}

    def add(self, landings: Iterable[Landing], source: Responses, target: Responses) -> None:
        """Add one batch of responses of both bases."""
        for one in landings:
            ours, theirs = (one.source_layer, one.role), (one.target_layer, one.role)
            if input_site(one.role) is one.role:
                _add(self.inputs, theirs, target.inputs[theirs], source.inputs[ours])
            _add(self.outputs, theirs, source.outputs[ours], target.outputs[theirs])


def _add(moments: dict[_Key, Moments], key: _Key, x: Tensor, y: Tensor) -> None:
    if key not in moments:
        moments[key] = Moments(x.shape[1], y.shape[1], x.device)
    moments[key].add(x.double(), y.double())  # exact maps ask for ridges that float32 would drown


def pair_moments(
    landings: Sequence[Landing],
    bases: tuple[BaseModel, BaseModel],
    loaded: tuple[LoadedBase, LoadedBase],
    strings: Sequence[str],
) -> PairMoments:
    """Run both bases over the strings once and sum what the landings' modules read and write.

    Args:
        landings: pairs of modules; every role of a layer, or at least the input sites of those there are.
        bases: source and target, for their modules.
        loaded: the same two, in memory.
        strings: probes.
    """
    ours, theirs = _modules(landings, bases)
    moments = PairMoments()
    for batch in pair_batches(*loaded, strings):
        moments.add(
            landings,
            respond(loaded[0], batch.source, modules=ours),
            respond(loaded[1], batch.target, modules=theirs),
        )
    return moments


def _modules(
    landings: Iterable[Landing], bases: tuple[BaseModel, BaseModel]
) -> tuple[list[LinearSpec], list[LinearSpec]]:
    """Source and target modules, each once, in the order of the layers."""
    source = dict.fromkeys((one.source_layer, one.role) for one in landings)
    target = dict.fromkeys((one.target_layer, one.role) for one in landings)
    return [bases[0].linear(*key) for key in source], [bases[1].linear(*key) for key in target]


def fit_maps(
    landings: Iterable[Landing],
    bases: tuple[BaseModel, BaseModel],
    fitted: PairMoments,
    held_out: PairMoments,
    layer_map: Sequence[int],
) -> dict[_Key, ModuleMaps]:
    """The maps of every landing, each with the ridge that predicts held-out probes best.

    Args:
        landings: pairs of modules.
        bases: source and target, for the norms of their weights.
        fitted: moments of the probes to fit.
        held_out: moments of other probes.
        layer_map: the source layer of every target layer.
    """
    inputs = {key: choose_ridge(one, held_out.inputs[key], RIDGES) for key, one in fitted.inputs.items()}
    result = {}
    for one in landings:
        key = (one.target_layer, one.role)
        moments = fitted.outputs[key]
        reads, writes = inputs[one.target_layer, input_site(one.role)], _choose(key, fitted, held_out)
        norms = [
            _norm(base, layer, one.role)
            for base, layer in zip(bases, (one.source_layer, one.target_layer), strict=True)
        ]
        fit = MapFit(
            input_ridge=reads.ridge,
            input_error=reads.error,
            output_ridge=writes.ridge,
            output_error=writes.error,
            positions=moments.count,
            source_norm=norms[0],
            target_norm=norms[1],
            copies=layer_map.count(one.source_layer),
        )
        result[key] = ModuleMaps(reads.map.float(), writes.map.float(), fit)
    return result


def _choose(key: _Key, fitted: PairMoments, held_out: PairMoments) -> RidgeChoice:
    return choose_ridge(fitted.outputs[key], held_out.outputs[key], RIDGES)


def _norm(base: BaseModel, layer: int, role: Role) -> float:
    return float(torch.linalg.matrix_norm(base.read_weight(layer, role)))
