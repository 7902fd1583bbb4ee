"""Fit the maps of method `probe` from what two bases compute over probes.

On the reading side, of every module: least squares. On the writing side least squares on responses does harm,
because they use few of the directions an adapter writes to. There it is for o and down the map between the
residual streams, for q, k and v whole heads (`fitting.heads`), for gate and up neurons (`fitting.neurons`).
Every ridge is chosen on probes that nothing was fitted on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cross_lora_core.algebra import CentredMoments, RidgeChoice, choose_ridge
from cross_lora_core.fitting.heads import (
    HeadMatch,
    carry_keys,
    carry_queries,
    carry_values,
    match_heads,
)
from cross_lora_core.fitting.neurons import NeuronMatch, match_neurons, neuron_map
from cross_lora_core.fitting.pair_moments import HEADS, NEURONS, WRITERS, PairMoments
from cross_lora_core.migration import Landing, MapFit, ModuleMaps, input_site
from cross_lora_core.models import BaseModel, Role

__all__ = ["fit_maps"]

RIDGES = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 1.0, 10.0, 100.0)
"""In units of the mean diagonal."""

SLACK = 0.05
"""How much worse than the best a map between streams may predict held-out probes for a larger ridge."""

_Key = tuple[int, Role]


def fit_maps(
    landings: Iterable[Landing],
    bases: tuple[BaseModel, BaseModel],
    fitted: PairMoments,
    held_out: PairMoments,
    layer_map: Sequence[int],
) -> dict[_Key, ModuleMaps]:
    """The maps of every landing.

    Args:
        landings: pairs of modules; every role that both bases have, of each layer there is.
        bases: source and target, for their weights.
        fitted: moments of the probes to fit.
        held_out: moments of other probes.
        layer_map: the source layer of every target layer.
    """
    reads = {key: _choose(one, held_out.inputs[key]) for key, one in fitted.inputs.items()}
    layers: dict[int, _Layer] = {}
    found = {}
    for one in landings:
        layer, role = one.target_layer, one.role
        if layer not in layers:
            layers[layer] = _Layer(one.source_layer, layer, bases, fitted, held_out)
        site = reads[layer, input_site(role)]
        writes = layers[layer].writes(role)
        fit = MapFit(
            input_ridge=site.ridge,
            input_error=site.error,
            output_ridge=writes.ridge,
            output_error=writes.error,
            positions=fitted.inputs[layer, input_site(role)].moments.count,
            source_norm=_norm(bases[0], one.source_layer, role),
            target_norm=_norm(bases[1], layer, role),
            copies=layer_map.count(one.source_layer),
        )
        found[layer, role] = ModuleMaps(site.map.float(), writes.map.float(), fit)
    return found


@dataclass(frozen=True, eq=False)
class _Writes:
    """An output map; its ridge, where one was chosen for it, and what it leaves unexplained."""

    map: Tensor
    ridge: float | None
    error: float


@dataclass(eq=False)
class _Layer:
    """The writing side of one pair of layers; what several roles share is found once."""

    source: int
    target: int
    bases: tuple[BaseModel, BaseModel]
    fitted: PairMoments
    held_out: PairMoments

    def writes(self, role: Role) -> _Writes:
        """The output map of a role."""
        if role in WRITERS:
            chosen = self._streams[role]
            return _Writes(chosen.map, chosen.ridge, chosen.error)
        if role in HEADS:
            return self._scores(role)
        return self._neurons(role) if role in NEURONS else self._values()

    def _neurons(self, role: Role) -> _Writes:
        found = self.fitted.neurons[self.target, role]
        G, error = neuron_map(found, self._neuron_match, turned=role is Role.up)
        return _Writes(G, None, error)

    def _scores(self, role: Role) -> _Writes:
        """A query is carried by the keys it meets, and a key by the queries."""
        other = Role.k if role is Role.q else Role.q
        carry = carry_queries if role is Role.q else carry_keys
        ours, theirs = (base.rotary for base in self.bases)
        paired = ours is not None and ours == theirs
        G = carry(self.fitted.heads[self.target, other], self._head_match, self._dims, paired=paired)
        return _Writes(G, None, 1.0 - self._head_match.agreement)

    def _values(self) -> _Writes:
        writes = self._streams[Role.o]
        (source, ours), (target, theirs) = zip(self.bases, (self.source, self.target), strict=True)
        weights = source.read_weight(ours, Role.o), target.read_weight(theirs, Role.o)
        rows = source.linear(ours, Role.v).d_out, target.linear(theirs, Role.v).d_out
        G, error = carry_values(weights, writes.map, rows, self._dims, writes.ridge)
        return _Writes(G, writes.ridge, error)

    @property
    def _dims(self) -> tuple[int, int]:
        """Rows of a head; all keys are one where a base does not say."""
        ours, theirs = self.bases
        return (
            ours.head_dim or ours.linear(self.source, Role.k).d_out,
            theirs.head_dim or theirs.linear(self.target, Role.k).d_out,
        )

    @cached_property
    def _streams(self) -> dict[Role, RidgeChoice]:
        """What carries the stream behind o, which v goes by too, and behind down."""
        keys = {role: (self.target, role) for role in WRITERS}
        return {
            role: _choose(self.fitted.writes[key], self.held_out.writes[key], SLACK)
            for role, key in keys.items()
            if key in self.fitted.writes
        }

    @cached_property
    def _neuron_match(self) -> NeuronMatch:
        roles = (*NEURONS, Role.down)
        known = {role: self.fitted.neurons.get((self.target, role)) for role in roles}
        return match_neurons({role: one for role, one in known.items() if one is not None})

    @cached_property
    def _head_match(self) -> HeadMatch:
        queries, keys = (self.fitted.heads[self.target, role] for role in HEADS)
        return match_heads(queries, keys, self._dims)


def _choose(fitted: CentredMoments, held_out: CentredMoments, slack: float = 0.0) -> RidgeChoice:
    return choose_ridge(fitted.about_means(), held_out.about_means(), RIDGES, slack)


def _norm(base: BaseModel, layer: int, role: Role) -> float:
    return float(torch.linalg.matrix_norm(base.read_weight(layer, role)))
