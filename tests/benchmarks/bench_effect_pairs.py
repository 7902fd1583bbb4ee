"""Ablation of method `effect` over pairs of controlled bases; writes one JSON document, variant by variant.

    python tests/benchmarks/bench_effect_pairs.py --bases .cross-lora/controlled --adapters /tmp/adapters \\
        --strings /tmp/strings --out /tmp/effect.json

What was interrupted goes on with the next variant. Every variant moves the adapters of three tasks between
five pairs of bases; what it recovers of the gap is compared with the default's, transfer by transfer. Rows
are those of `controlled_pairs.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench_effect import Strings, Variant
from controlled_pairs import Pair, Updates
from variants import DEFAULT, measure_variants, parser_of

from cross_lora_core.algebra import CentredMoments
from cross_lora_core.fitting import EffectOptions, fit_effect, stream_moments
from cross_lora_core.migration import effect_landings


def _options(**changed: Any) -> Variant:
    return Variant(options=EffectOptions(**changed))


VARIANTS = {
    DEFAULT: Variant(),
    **{f"ridge {one}": _options(ridge=one) for one in (0.001, 0.003, 0.01, 0.03, 1.0)},
    **{f"map ridge {one}": _options(map_ridge=one) for one in (1e-5, 1e-4, 3e-4, 3e-3, 1e-2)},
    **{f"rank {one}": _options(rank=one) for one in (4, 8, 32, 64)},
    **{f"{one} strings": Variant(strings=(one, 0)) for one in (32, 64, 256, 512)},
    **{f"temperature {one}": Variant(temperature=one) for one in (0.7, 1.3)},
    "half contrasted": Variant(strings=(64, 64)),
    "contrasted": Variant(strings=(0, 128)),
    **{f"{one} strings behind the maps": Variant(shared=one) for one in (16, 64, 1024)},
}


class Effect:
    """Method `effect`, with what several variants share kept: strings, and moments of a pair."""

    def __init__(self, strings: Path, seed: int) -> None:
        self._folder, self._seed = strings, seed
        self._moments: dict[tuple[tuple[str, str], int], dict[int, CentredMoments]] = {}

    def updates(self, pair: Pair, adapter: Path, variant: Variant) -> Updates:
        """What a variant makes of an adapter."""
        landings = effect_landings(pair.source.base.layers, pair.target.base.layers)
        folder = self._folder / pair.names[0]
        folder.mkdir(parents=True, exist_ok=True)
        strings = Strings(pair.source.loaded, adapter, self._seed, folder)
        key = (pair.names, variant.shared)
        if key not in self._moments:
            shared = strings.of_source(variant.shared)
            self._moments[key] = stream_moments(pair.source, pair.target, shared, landings)
        probes = strings.of_adapter(*variant.strings, variant.temperature)
        fit = fit_effect(
            pair.source, pair.target, adapter, probes, landings, self._moments[key], {}, variant.options
        )  # fmt: skip
        return {each: one.update for each, one in fit.projected.items()}


def main() -> None:
    """Read the arguments and measure what is missing."""
    parser = parser_of(__doc__)
    parser.add_argument("--strings", type=Path, required=True, help="folder; strings sampled before are used")
    asked = parser.parse_args()
    measure_variants(asked, VARIANTS, Effect(asked.strings, asked.seed).updates)


if __name__ == "__main__":
    main()
