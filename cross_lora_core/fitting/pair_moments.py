"""What two bases compute over probes, module by module, as sums: what the maps of `probe` are fitted from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cross_lora_core.algebra import CentredMoments, Correlations
from cross_lora_core.fitting.sides import EffectSide
from cross_lora_core.fitting.stream_moments import position_weights
from cross_lora_core.migration import Landing, input_site
from cross_lora_core.models import Role
from cross_lora_core.responses import Responses, TokenBatch, layer_paths, pair_batches, respond

__all__ = ["PairMoments", "pair_moments"]

NEURONS = (Role.gate, Role.up)
HEADS = (Role.q, Role.k)
WRITERS = (Role.o, Role.down)

_Key = tuple[int, Role]


@dataclass(eq=False)
class PairMoments:
    """Sums over probes, by (target layer, role).

    Attributes:
        inputs: of what input sites read, x_t against x_s.
        writes: for o and down, of the source's stream behind them against the target's. Where a norm stands
            between such a weight and the stream (Gemma 2 and 3), of the two outputs.
        heads: for q and k, of outputs: source against target, and target against source.
        neurons: for gate and up, of outputs, and for down, of inputs: how far each neuron of the source
            goes with each of the target.
    """

    inputs: dict[_Key, CentredMoments] = field(default_factory=dict)
    writes: dict[_Key, CentredMoments] = field(default_factory=dict)
    heads: dict[_Key, tuple[CentredMoments, CentredMoments]] = field(default_factory=dict)
    neurons: dict[_Key, Correlations] = field(default_factory=dict)

    def add_inputs(self, key: _Key, theirs: Tensor, ours: Tensor) -> None:
        """Add what an input site reads in the target, and in the source."""
        _add(self.inputs, key, theirs.double(), ours.double(), torch.ones(len(ours), device=ours.device))

    def add_writes(self, key: _Key, ours: Tensor, theirs: Tensor, *, stream: bool) -> None:
        """Add what is behind a module that writes; a stream's few huge positions do not decide everything."""
        even = torch.ones(len(ours), device=ours.device)
        weights = position_weights(theirs) if stream else even
        _add(self.writes, key, ours.double(), theirs.double(), weights)

    def add_heads(self, key: _Key, ours: Tensor, theirs: Tensor) -> None:
        """Add queries or keys."""
        ours, theirs = ours.double(), theirs.double()
        if key not in self.heads:
            means = ours.mean(0), theirs.mean(0)
            self.heads[key] = CentredMoments(*means), CentredMoments(*means[::-1])
        weights = torch.ones(len(ours), device=ours.device)
        self.heads[key][0].add(ours, theirs, weights)
        self.heads[key][1].add(theirs, ours, weights)

    def add_neurons(self, key: _Key, ours: Tensor, theirs: Tensor) -> None:
        """Add what neurons compute."""
        if key not in self.neurons:
            self.neurons[key] = Correlations(ours.mean(0), theirs.mean(0))
        self.neurons[key].add(ours, theirs)


def _add(into: dict[_Key, CentredMoments], key: _Key, x: Tensor, y: Tensor, weights: Tensor) -> None:
    if key not in into:
        into[key] = CentredMoments(x.mean(0), y.mean(0))
    into[key].add(x, y, weights.to(x))


def pair_moments(
    landings: Sequence[Landing], source: EffectSide, target: EffectSide, strings: Sequence[str]
) -> PairMoments:
    """Run both bases over the strings once and sum what the landings' modules read and write.

    Args:
        landings: pairs of modules; every role that both bases have, of each layer there is.
        source: the base that adapters are for, none on.
        target: the base they go to.
        strings: probes.
    """
    found = PairMoments()
    ours = list(dict.fromkeys((one.source_layer, one.role) for one in landings))
    theirs = [(one.target_layer, one.role) for one in landings]
    free = {one for one in landings if one.role in WRITERS and _reaches_stream(one, source, target)}
    for batch in pair_batches(source.loaded, target.loaded, strings):
        here, there = _look(source, batch.source, ours), _look(target, batch.target, theirs)
        for one in landings:
            _sum(found, one, here, there, stream=one in free)
    return found


def _reaches_stream(one: Landing, source: EffectSide, target: EffectSide) -> bool:
    """Whether both weights write to the residual stream with no norm between."""
    layers = ((source, one.source_layer), (target, one.target_layer))
    return all(side.base.read_gains(layer, one.role)[1] is None for side, layer in layers)


def _look(side: EffectSide, batch: TokenBatch, keys: Sequence[_Key]) -> Responses:
    layers = sorted({layer for layer, _ in keys})
    norms = {layer: side.base.input_norm(layer, Role.up) for layer in layers}
    return respond(
        side.loaded,
        batch,
        modules=[side.base.linear(*key) for key in keys],
        layers=layer_paths(side.base),
        boundaries=[layer + 1 for layer in layers],
        norms={layer: path for layer, path in norms.items() if path is not None},
    )


def _sum(found: PairMoments, one: Landing, here: Responses, there: Responses, *, stream: bool) -> None:
    ours, theirs = (one.source_layer, one.role), (one.target_layer, one.role)
    if input_site(one.role) is one.role:
        found.add_inputs(theirs, there.inputs[theirs], here.inputs[ours])
    if one.role is Role.down:
        found.add_neurons(theirs, here.inputs[ours], there.inputs[theirs])
    if one.role in WRITERS:
        pair = (
            (_behind(here, ours), _behind(there, theirs))
            if stream
            else (here.outputs[ours], there.outputs[theirs])
        )
        found.add_writes(theirs, *pair, stream=stream)
    elif one.role in HEADS:
        found.add_heads(theirs, here.outputs[ours], there.outputs[theirs])
    elif one.role in NEURONS:
        found.add_neurons(theirs, here.outputs[ours], there.outputs[theirs])


def _behind(responses: Responses, key: _Key) -> Tensor:
    """The stream behind attention, as the feed-forward part reads it, or behind the layer."""
    layer, role = key
    end = responses.boundaries[layer + 1]
    return responses.before.get(layer, end) if role is Role.o else end
