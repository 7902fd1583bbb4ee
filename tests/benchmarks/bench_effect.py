"""Ablation of method `effect` on real bases: strings, contrast, rank, ridges; prints one JSON document.

    python tests/benchmarks/bench_effect.py --bases .cross-lora/bases --adapter examples/adapters/ticket-json

Losses are on development rows that `examples/make_rows.py` makes with a seed of its own; no row of an
adapter's `evaluation.jsonl` is among them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from cross_lora_core.evaluation import EvaluationRow, LoadedBase, paired_bootstrap, read_rows, row_losses
from cross_lora_core.fitting import EffectOptions, EffectSide, fit_effect
from cross_lora_core.migration import ProbeSpec, effect_landings
from cross_lora_core.models import open_base
from cross_lora_core.responses import sample_strings, text_strings, with_updates

SEED = 77


def _rows_module() -> ModuleType:
    path = Path(__file__).parents[2] / "examples" / "make_rows.py"
    spec = importlib.util.spec_from_file_location("make_rows", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def development_rows(adapter: Path, count: int) -> tuple[EvaluationRow, ...]:
    """Rows of the adapter's task that are in neither its training nor its evaluation."""
    known = set(read_rows(adapter / "evaluation.jsonl"))
    made = _rows_module().rows_of(adapter.name, count + len(known), held_out=True, seed=SEED)
    rows = [EvaluationRow(one["prompt"], one["completion"]) for one in made]
    return tuple(one for one in rows if one not in known)[:count]


@contextmanager
def timed(into: dict[str, Any], name: str) -> Iterator[None]:
    """Note the seconds of a block."""
    started = time.perf_counter()
    yield
    into[name] = round(time.perf_counter() - started, 1)


def variants(default: EffectOptions) -> dict[str, tuple[str, EffectOptions]]:
    """By name: which strings, and how they are fitted."""
    return {
        "default": ("mixed", default),
        "plain strings": ("plain", default),
        "contrasted strings": ("contrasted", default),
        "twice the strings": ("twice", default),
        "bundled text": ("text", default),
        "rank 4": ("mixed", replace(default, rank=4)),
        "rank 64": ("mixed", replace(default, rank=64)),
        "ridge 1": ("mixed", replace(default, ridge=1.0)),
        "ridge 0.01": ("mixed", replace(default, ridge=0.01)),
        "map ridge 0.1": ("mixed", replace(default, map_ridge=0.1)),
    }


def strings_of(loaded: LoadedBase, adapter: Path, spec: ProbeSpec) -> tuple[dict[str, Any], dict[str, float]]:
    """Every kind of strings, and the seconds each took."""
    seconds: dict[str, float] = {}
    kinds: dict[str, Any] = {"text": text_strings(spec.count)}
    with loaded.with_adapter(adapter):
        for name, contrasts in (("plain", (0.0,)), ("contrasted", (1.0,))):
            with timed(seconds, name):
                kinds[name] = sample_strings(
                    loaded, spec.count, tokens=spec.tokens, seed=spec.seed, contrasts=contrasts
                )
    half = spec.count // 2
    kinds["mixed"] = (*kinds["plain"][:half], *kinds["contrasted"][:half])
    kinds["twice"] = (*kinds["plain"], *kinds["contrasted"])
    return kinds, seconds


def run(bases: Path, names: tuple[str, str], adapter: Path, count: int, only: list[str]) -> dict[str, Any]:
    """Fit and measure every variant of one adapter."""
    source, target = (_side(bases / name) for name in names)
    rows = development_rows(adapter, count)
    base = row_losses(target.loaded, rows)
    strings, seconds = strings_of(source.loaded, adapter, ProbeSpec())
    results = {}
    for name, (kind, options) in variants(EffectOptions()).items():
        if only and name not in only:
            continue
        cost: dict[str, Any] = {}
        with timed(cost, "seconds"):
            landings = effect_landings(source.base.layers, target.base.layers)
            fit = fit_effect(source, target, adapter, strings[kind], landings, {}, options)
        updates = {target.base.linear(*key).module: one.update for key, one in fit.projected.items()}
        with with_updates(target.loaded, updates):
            losses = row_losses(target.loaded, rows)
        gain = paired_bootstrap([a - b for a, b in zip(base, losses, strict=True)], confidence=0.99)
        results[name] = asdict(gain) | asdict(options) | cost | {"strings": kind, "positions": fit.positions}
        print(f"{adapter.name}: {name}: {gain.mean:+.4f}", file=sys.stderr, flush=True)
    return {
        "adapter": adapter.name,
        "rows": len(rows),
        "target base": sum(base) / len(base),
        "seconds of sampling": seconds,
        "improvement": results,
    }


def _side(folder: Path) -> EffectSide:
    return EffectSide(open_base(folder), LoadedBase(folder, torch.float32, torch.device("cpu")))


def main() -> None:
    """Read the arguments and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bases", type=Path, required=True)
    parser.add_argument("--source", default="smollm2-135m")
    parser.add_argument("--target", default="gemma-3-270m")
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--only", action="append", default=[], help="a variant; may be repeated")
    asked = parser.parse_args()
    found = run(asked.bases, (asked.source, asked.target), asked.adapter, asked.rows, asked.only)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
