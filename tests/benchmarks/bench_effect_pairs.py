"""Ablation of method `effect` over pairs of controlled bases; writes one JSON document, variant by variant.

    python tests/benchmarks/bench_effect_pairs.py --bases .cross-lora/controlled --adapters /tmp/adapters \\
        --strings /tmp/strings --out /tmp/effect.json

What was interrupted goes on with the next variant. Every variant moves the adapters of three tasks between
five pairs of bases; what it recovers of the gap is compared with the default's, transfer by transfer. Rows
are those of `controlled_pairs.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench_effect import Strings, Variant, timed
from controlled_pairs import (
    RELATED,
    ControlledBases,
    Pair,
    Transfer,
    Updates,
    compared,
    machine,
    measured,
    summary,
)

from cross_lora_core.algebra import CentredMoments
from cross_lora_core.fitting import EffectOptions, fit_effect, stream_moments
from cross_lora_core.migration import effect_landings

DEFAULT = "default"


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


def judged(found: Sequence[Transfer], default: Sequence[Transfer]) -> dict[str, Any]:
    """A variant in figures: of all pairs, and of those apart and related."""
    related = {" → ".join(one) for one in RELATED}
    kinds = {"all": {True, False}, "unrelated": {False}, "related": {True}}
    told: dict[str, Any] = {}
    for kind, wanted in kinds.items():
        ours, theirs = ([one for one in each if (one.pair in related) in wanted] for each in (found, default))
        told[kind] = {"gap": summary(ours), "against the default": compared(ours, theirs)}
    return told


def run(asked: argparse.Namespace) -> None:
    """Fit and measure every variant that the file has no figures of, and add them to it."""
    told = {"seed": asked.seed, "rows": asked.rows, "machine": machine()}
    results = kept(asked.out, told)
    bench = ControlledBases(asked.bases, asked.adapters, asked.rows)
    effect = Effect(asked.strings, asked.seed)
    for name, variant in VARIANTS.items():
        if name in results or (asked.only and name not in {DEFAULT, *asked.only}):
            continue
        cost: dict[str, Any] = {}
        with timed(cost, "seconds"):
            found = list(
                measured(bench, lambda pair, adapter, own=variant: effect.updates(pair, adapter, own))
            )
        results[name] = asdict(variant) | cost | {"transfers": [asdict(one) for one in found]}
        default = [Transfer(**one) for one in results[DEFAULT]["transfers"]]
        results[name] |= judged(found, default)
        asked.out.write_text(json.dumps(told | {"variants": results}, indent=1, ensure_ascii=False))
        tell(name, results[name])


def kept(out: Path, told: dict[str, Any]) -> dict[str, Any]:
    """Variants an earlier run measured; the file is refused where that was another measurement."""
    if not out.exists():
        return {}
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    variants: dict[str, Any] = found.pop("variants")
    if found != told:
        raise SystemExit(f"expected figures of {told}, got {found} in {out}; name another file")
    return variants


def tell(name: str, result: dict[str, Any]) -> None:
    """Say what a variant came to."""
    parts = []
    for kind in ("all", "unrelated", "related"):
        gap, more = result[kind]["gap"], result[kind]["against the default"]
        parts.append(
            f"{kind} {gap['mean']:.1%} ({more['mean']:+.1%}, {more['low']:+.1%} … {more['high']:+.1%})"
        )
    print(f"{name}: {', '.join(parts)}; {result['seconds']} s", file=sys.stderr, flush=True)


def main() -> None:
    """Read the arguments and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bases", type=Path, required=True)
    parser.add_argument("--adapters", type=Path, required=True, help="folder; trained there where missing")
    parser.add_argument("--strings", type=Path, required=True, help="folder; strings sampled before are used")
    parser.add_argument("--rows", type=int, default=60, help="development rows of a task")
    parser.add_argument("--only", action="append", default=[], help="a variant; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="of the strings")
    parser.add_argument("--out", type=Path, required=True, help="file; variants that are in it are kept")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
