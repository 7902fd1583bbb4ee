"""Ablation of method `probe` over pairs of controlled bases; writes one JSON document, variant by variant.

    python tests/benchmarks/bench_probe_pairs.py --bases .cross-lora/controlled --adapters /tmp/adapters \\
        --out /tmp/probe.json

Every variant moves the adapters of three tasks between five pairs of bases; what it recovers of the gap is
compared with the default's, transfer by transfer. Rows are those of `controlled_pairs.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from controlled_pairs import Pair, Updates
from variants import DEFAULT, measure_variants, parser_of

from cross_lora_core.adapters import read_adapter, updates_by_role
from cross_lora_core.algebra import CentredMoments, choose_ridge
from cross_lora_core.fitting import PairMoments, fit_maps, maps, pair_moments
from cross_lora_core.migration import Landing, MapSpec, ModuleMaps, carry
from cross_lora_core.migration import maps as carrying
from cross_lora_core.models import Role, map_layers
from cross_lora_core.responses import (
    PairedBatch,
    ProbeKind,
    layer_paths,
    pair_batches,
    probe_strings,
    respond,
    with_updates,
)

EVERY = tuple(Role)
STRENGTHS = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0, 1.25)

_Key = tuple[int, Role]


@dataclass(frozen=True)
class Variant:
    """How maps are fitted and updates carried.

    Attributes:
        probes: strings the maps are fitted on.
        responses: roles whose output map is least squares on what the modules write, as in version 1.
        strength: of every update; None to choose one for each adapter on held-out strings.
        slack: of the ridges of maps between streams.
        strongest: bound of an update's norm.
        roles: that are moved.
    """

    probes: MapSpec = field(default_factory=MapSpec)
    responses: tuple[Role, ...] = ()
    strength: float | None = 1.0
    slack: float = maps.SLACK
    strongest: float = carrying.STRONGEST
    roles: tuple[Role, ...] = EVERY


def _of(kind: str, count: int, held_out: int = 60) -> MapSpec:
    return replace(MapSpec(), kind=kind, count=count, held_out=held_out)


AS_IT_WAS = Variant(probes=_of("text", 60, 15), responses=EVERY, strongest=2.0)
KINDS = [("generated", 60), ("generated", 120), ("generated", 480), ("tokens", 60), ("tokens", 240)]

VARIANTS = {
    DEFAULT: Variant(),
    "version 1": AS_IT_WAS,
    "all outputs by responses": Variant(responses=EVERY),
    "o and down by responses": Variant(responses=(Role.o, Role.down)),
    "gate and up by responses": Variant(responses=(Role.gate, Role.up)),
    "q and k by responses": Variant(responses=(Role.q, Role.k)),
    "v by responses": Variant(responses=(Role.v,)),
    **{f"without {' and '.join(some)}": Variant(roles=tuple(set(EVERY) - set(some))) for some in
       ((Role.q, Role.k), (Role.v,), (Role.gate, Role.up), (Role.o, Role.down))},
    "best held-out ridge": Variant(slack=0.0),
    **{f"bound {one}": Variant(strongest=one) for one in (2.0, 8.0, 1e9)},
    **{f"strength {one}": Variant(strength=one) for one in (0.5, 0.75, 1.25)},
    "strength chosen": Variant(strength=None),
    **{f"version 1, strength {one}": replace(AS_IT_WAS, strength=one) for one in (0.5, 0.25)},
    "version 1, strength chosen": replace(AS_IT_WAS, strength=None),
    "text 60": Variant(probes=_of("text", 60, 15)),
    **{f"{kind} {n}": Variant(probes=_of(kind, n)) for kind, n in KINDS},
    "text 100": Variant(probes=_of("text", 100, 28)),
    **{f"version 1, {kind} {n}": replace(AS_IT_WAS, probes=_of(kind, n)) for kind, n in KINDS},
    "version 1, text 100": replace(AS_IT_WAS, probes=_of("text", 100, 28)),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Known:
    """What variants of one pair and one kind of probes share."""

    landings: Sequence[Landing]
    fitted: PairMoments
    held_out: PairMoments
    parts: tuple[Sequence[str], Sequence[str]]
    batches: Sequence[PairedBatch]


def _outputs(pair: Pair, landings: Sequence[Landing], strings: Sequence[str]) -> dict[_Key, CentredMoments]:
    """Moments of what modules write, source against target."""
    found: dict[_Key, CentredMoments] = {}
    for batch in pair_batches(pair.source.loaded, pair.target.loaded, strings):
        here = respond(pair.source.loaded, batch.source, modules=pair.source.base.linears())
        there = respond(pair.target.loaded, batch.target, modules=pair.target.base.linears())
        for one in landings:
            x, y = here.outputs[one.source_layer, one.role], there.outputs[one.target_layer, one.role]
            moments = found.setdefault((one.target_layer, one.role), CentredMoments(x.mean(0), y.mean(0)))
            moments.add(x, y, torch.ones(len(x)))
    return found


class Probe:
    """Method `probe`, with what several variants share kept."""

    def __init__(self) -> None:
        self._known: dict[tuple[tuple[str, str], MapSpec], Known] = {}
        self._maps: dict[tuple[Any, ...], dict[_Key, ModuleMaps]] = {}
        self._outputs: dict[tuple[tuple[str, str], MapSpec], list[dict[_Key, CentredMoments]]] = {}

    def updates(self, pair: Pair, adapter: Path, variant: Variant) -> Updates:
        """What a variant makes of an adapter."""
        known, found = self._fitted(pair, variant)
        ours = updates_by_role(read_adapter(adapter), pair.source.base).updates
        with patch.object(carrying, "STRONGEST", variant.strongest):
            moved = {
                (one.target_layer, one.role): carry(
                    ours[one.source_layer, one.role], found[one.target_layer, one.role]
                )
                for one in known.landings
                if one.role in variant.roles
            }
        strength = variant.strength
        if strength is None:
            strength = _strength(pair, adapter, known, moved)
        return _scaled(moved, strength)

    def _fitted(self, pair: Pair, variant: Variant) -> tuple[Known, dict[_Key, ModuleMaps]]:
        spec = (pair.names, variant.probes)
        if spec not in self._known:
            self._known[spec] = _look(pair, variant.probes)
        known = self._known[spec]
        key = (*spec, variant.responses, variant.slack)
        if key not in self._maps:
            bases = pair.source.base, pair.target.base
            layers = map_layers(bases[0].layers, bases[1].layers)
            with patch.object(maps, "SLACK", variant.slack):
                found = fit_maps(known.landings, bases, known.fitted, known.held_out, layers)
            if variant.responses and spec not in self._outputs:
                self._outputs[spec] = [_outputs(pair, known.landings, part) for part in known.parts]
            for at, one in found.items():
                if at[1] in variant.responses:
                    fitted, held_out = (each[at].about_means() for each in self._outputs[spec])
                    G = choose_ridge(fitted, held_out, maps.RIDGES).map.float()
                    found[at] = replace(one, output=G)
            self._maps[key] = found
        return known, self._maps[key]


def _look(pair: Pair, probes: MapSpec) -> Known:
    bases = pair.source.base, pair.target.base
    layers = map_layers(bases[0].layers, bases[1].layers)
    landings = [Landing(layer, layers[layer], role) for layer in range(bases[1].layers) for role in Role]
    strings = probe_strings(
        ProbeKind(probes.kind),
        probes.count + probes.held_out,
        source=bases[0],
        target=bases[1],
        loaded=pair.source.loaded,
        tokens=probes.tokens,
        seed=probes.seed,
    )
    parts = strings[: probes.count], strings[probes.count :]
    fitted, held_out = (pair_moments(landings, pair.source, pair.target, part) for part in parts)
    batches = tuple(pair_batches(pair.source.loaded, pair.target.loaded, parts[1]))
    return Known(landings, fitted, held_out, parts, batches)


def _scaled(updates: Updates, strength: float) -> Updates:
    return {key: replace(one, scaling=one.scaling * strength) for key, one in updates.items()}


def _strength(pair: Pair, adapter: Path, known: Known, moved: Updates) -> float:
    """The strength at which the target's last stream changes most as the mapped one of the source does."""
    source, target, last = pair.source, pair.target, pair.target.base.layers
    module = {key: target.base.linear(*key).module for key in moved}

    def ends(side: Any, batches: Sequence[Any]) -> torch.Tensor:
        paths = layer_paths(side.base)
        found = (respond(side.loaded, one, layers=paths, boundaries=[len(paths)]) for one in batches)
        return torch.cat([one.boundaries[len(paths)] for one in found])

    ours, theirs = ([getattr(one, name) for one in known.batches] for name in ("source", "target"))
    before, plain = ends(source, ours), ends(target, theirs)
    with source.loaded.with_adapter(adapter):
        change = ends(source, ours) - before
    key = (last - 1, Role.down)
    G = choose_ridge(
        known.fitted.writes[key].about_means(), known.held_out.writes[key].about_means(), maps.RIDGES, maps.SLACK
    ).map.float()  # fmt: skip
    wanted, weights = change @ G.T, 1.0 / plain.square().sum(1)
    errors: Mapping[float, float] = {}
    for strength in STRENGTHS:
        updates = {module[key]: one for key, one in _scaled(moved, strength).items()}
        with with_updates(target.loaded, updates):
            got = ends(target, theirs) - plain
        errors = {**errors, strength: float((weights * (wanted - got).square().sum(1)).sum())}
    return min(errors, key=lambda one: errors[one])


def main() -> None:
    """Read the arguments and measure what is missing."""
    asked, probe = parser_of(__doc__).parse_args(), Probe()
    seeded = {
        name: replace(one, probes=replace(one.probes, seed=asked.seed)) for name, one in VARIANTS.items()
    }
    measure_variants(asked, seeded, probe.updates)


if __name__ == "__main__":
    main()
