"""Ablation of method `refine` on real bases: weighting, strings, rate, start; prints one JSON document.

    python tests/benchmarks/bench_refine.py --bases .cross-lora/bases --adapter examples/adapters/ticket-json

Every variant has the same steps. Losses are on development rows as in `bench_effect.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench_effect import development_rows, improvement, parser_of, side, timed

from cross_lora_core.algebra import LoraFactors
from cross_lora_core.evaluation import row_losses
from cross_lora_core.fitting import EffectOptions, EffectSide, fit_effect, refine, stream_moments
from cross_lora_core.migration import RefineSpec, StreamSpec, effect_landings, refine_landings
from cross_lora_core.models import Role
from cross_lora_core.responses import sample_strings, with_updates

_Updates = Mapping[tuple[int, Role], LoraFactors]


def variants(default: RefineSpec) -> dict[str, tuple[RefineSpec, str, bool]]:
    """By name: how it trains, on which strings, and whether it goes on from `effect`."""
    return {
        "default": (default, "mixed", True),
        "gain": (replace(default, weighting="gain"), "mixed", True),
        "none": (replace(default, weighting="none"), "mixed", True),
        "plain strings": (default, "plain", True),
        "plain strings, none": (replace(default, weighting="none"), "plain", True),
        "contrasted strings": (default, "contrasted", True),
        "from nothing": (default, "mixed", False),
        "rate 2e-4": (replace(default, learning_rate=2e-4), "mixed", True),
        "rate 2e-3": (replace(default, learning_rate=2e-3), "mixed", True),
    }


def strings_of(
    source: EffectSide, adapter: Path, count: int, folder: Path | None
) -> dict[str, tuple[str, ...]]:
    """Every kind of strings; kept in a folder for the next time, where there is one."""
    file = folder / f"{adapter.name}-{count}.json" if folder else None
    if file and file.exists():
        return {kind: tuple(strings) for kind, strings in json.loads(file.read_text()).items()}
    with source.loaded.with_adapter(adapter):
        plain, contrasted = (
            sample_strings(source.loaded, count, tokens=100, seed=1, contrasts=(contrast,))
            for contrast in (0.0, 1.0)
        )
    kinds = {"plain": plain, "contrasted": contrasted}
    kinds["mixed"] = (*plain[: count // 2], *contrasted[: count // 2])
    if file:
        file.write_text(json.dumps(kinds, ensure_ascii=False), encoding="utf-8")
    return kinds


def fitted(source: EffectSide, target: EffectSide, adapter: Path, strings: Sequence[str]) -> _Updates:
    """What `effect` makes of the adapter."""
    landings = effect_landings(source.base.layers, target.base.layers)
    shared = sample_strings(source.loaded, StreamSpec().strings.count, tokens=100)
    moments = stream_moments(source, target, shared, landings)
    found = fit_effect(source, target, adapter, strings, landings, moments, {}, EffectOptions())
    return {key: one.update for key, one in found.projected.items()}


def losses_with(target: EffectSide, updates: _Updates, rows: Sequence[Any]) -> list[float]:
    """Losses of the rows with updates on."""
    with with_updates(target.loaded, {target.base.linear(*key).module: one for key, one in updates.items()}):
        return row_losses(target.loaded, rows)


def run(asked: argparse.Namespace) -> dict[str, Any]:
    """Train and measure the variants of one adapter."""
    source, target = (side(asked.bases / name) for name in (asked.source, asked.target))
    rows = development_rows(asked.adapter, asked.rows)
    strings = strings_of(source, asked.adapter, asked.strings, asked.keep)
    start = fitted(source, target, asked.adapter, strings["plain"][:64])
    base, begun = row_losses(target.loaded, rows), losses_with(target, start, rows)
    landings = refine_landings(source.base.layers, target.base.layers, target.base.roles)
    results: dict[str, Any] = {"effect": improvement(base, begun)}
    for name, (spec, kind, goes_on) in variants(RefineSpec(steps=asked.steps, seconds=1e9)).items():
        if asked.only and name not in asked.only:
            continue
        cost: dict[str, Any] = {}
        with timed(cost, "seconds"):
            begin = start if goes_on else {}
            fit = refine(source, target, asked.adapter, strings[kind], landings, begin, 16, spec)
        updates = {key: one.update for key, one in fit.projected.items()}
        found = improvement(base, losses_with(target, updates, rows))
        results[name] = found | asdict(spec) | fit.as_dict() | {"strings": kind} | cost
        print(f"{asked.adapter.name}: {name}: {found['mean']:+.4f}", file=sys.stderr, flush=True)
    return {"adapter": asked.adapter.name, "target base": sum(base) / len(base), "improvement": results}


def main() -> None:
    """Read the arguments and print what was found."""
    parser = parser_of(__doc__)
    parser.add_argument("--strings", type=int, default=256)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--keep", type=Path, help="folder that sampled strings are kept in")
    print(json.dumps(run(parser.parse_args()), indent=1))


if __name__ == "__main__":
    main()
