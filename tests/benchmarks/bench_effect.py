"""Ablation of method `effect` on real bases: strings, maps, rank, ridges; prints one JSON document.

    python tests/benchmarks/bench_effect.py --bases .cross-lora/bases --adapter examples/adapters/ticket-json \\
        --strings /tmp/strings

Losses are on development rows that `examples/make_rows.py` makes with a seed of its own; no row of an
adapter's `evaluation.jsonl` is among them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from cross_lora_core.evaluation import EvaluationRow, LoadedBase, paired_bootstrap, read_rows, row_losses
from cross_lora_core.fitting import EffectOptions, EffectSide, fit_effect, stream_moments
from cross_lora_core.migration import effect_landings
from cross_lora_core.models import open_base
from cross_lora_core.responses import sample_strings, with_updates

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


@dataclass(frozen=True)
class Variant:
    """Which strings, and how they are used.

    Attributes:
        strings: that the adapted source writes: so many plain ones and so many contrasted ones.
        temperature: that they are sampled at.
        shared: strings of the plain source that the maps are fitted on besides.
        options: of the fit.
    """

    strings: tuple[int, int] = (128, 0)
    temperature: float = 1.0
    shared: int = 256
    options: EffectOptions = field(default_factory=EffectOptions)


VARIANTS = {
    "default": Variant(),
    "half the strings": Variant(strings=(64, 0)),
    "twice the strings": Variant(strings=(256, 0)),
    "half contrasted": Variant(strings=(64, 64)),
    "contrasted": Variant(strings=(0, 128)),
    "shared 16": Variant(shared=16),
    "shared 64": Variant(shared=64),
    "map ridge 0.01": Variant(options=EffectOptions(map_ridge=0.01)),
    "map ridge 0.0001": Variant(options=EffectOptions(map_ridge=0.0001)),
    "rank 4": Variant(options=EffectOptions(rank=4)),
    "rank 64": Variant(options=EffectOptions(rank=64)),
    "ridge 1": Variant(options=EffectOptions(ridge=1.0)),
    "ridge 0.01": Variant(options=EffectOptions(ridge=0.01)),
}


class Strings:
    """Strings of every kind, sampled when they are asked for, and kept in a folder."""

    def __init__(self, loaded: LoadedBase, adapter: Path, seed: int, folder: Path) -> None:
        self._loaded, self._adapter, self._seed, self._folder = loaded, adapter, seed, folder

    def of_source(self, count: int) -> tuple[str, ...]:
        return self._sampled("source", None, count, 0.0)

    def of_adapter(self, plain: int, contrasted: int, temperature: float = 1.0) -> tuple[str, ...]:
        kinds = [(plain, 0.0), (contrasted, 1.0)]
        name = self._adapter.name
        found = [
            self._sampled(name, self._adapter, count, contrast, temperature) for count, contrast in kinds
        ]
        return (*found[0], *found[1])

    def _sampled(
        self, name: str, adapter: Path | None, count: int, contrast: float, temperature: float = 1.0
    ) -> tuple[str, ...]:
        """The first so many: of a seed they are the same however many are sampled."""
        path = self._folder / f"{name}-{contrast}-{temperature}-{self._seed}.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        if len(found) < count:
            wanted = max(count, 256)
            with self._loaded.with_adapter(adapter):
                found = sample_strings(
                    self._loaded,
                    wanted,
                    tokens=100,
                    temperature=temperature,
                    seed=self._seed,
                    contrasts=(contrast,),
                )
            path.write_text(json.dumps(found), encoding="utf-8")
        return tuple(found[:count])


def run(bases: Path, names: tuple[str, str], adapter: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Fit and measure every variant of one adapter."""
    source, target = (side(bases / name) for name in names)
    rows = development_rows(adapter, asked.rows)
    base = row_losses(target.loaded, rows)
    strings = Strings(source.loaded, adapter, asked.seed, asked.strings)
    landings = effect_landings(source.base.layers, target.base.layers)
    results = {}
    for name, one in VARIANTS.items():
        if asked.only and name not in asked.only:
            continue
        cost: dict[str, Any] = {}
        probes = strings.of_adapter(*one.strings, one.temperature)
        shared = strings.of_source(one.shared)
        with timed(cost, "seconds of comparing"):
            moments = stream_moments(source, target, shared, landings)
        with timed(cost, "seconds of fitting"):
            fit = fit_effect(source, target, adapter, probes, landings, moments, {}, one.options)
        updates = {target.base.linear(*key).module: each.update for key, each in fit.projected.items()}
        with with_updates(target.loaded, updates):
            losses = row_losses(target.loaded, rows)
        gain = improvement(base, losses)
        results[name] = gain | asdict(one) | cost | {"positions": fit.positions}
        print(f"{adapter.name}: {name}: {gain['mean']:+.4f} {cost}", file=sys.stderr, flush=True)
    return {
        "adapter": adapter.name,
        "rows": len(rows),
        "seed": asked.seed,
        "target base": sum(base) / len(base),
        "improvement": results,
    }


def side(folder: Path) -> EffectSide:
    """A base as files and in memory."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return EffectSide(open_base(folder), LoadedBase(folder, torch.float32, device))


def improvement(base: Sequence[float], losses: Sequence[float]) -> dict[str, Any]:
    """Fall of the loss with its 99 % interval, nats per character."""
    return asdict(paired_bootstrap([a - b for a, b in zip(base, losses, strict=True)], confidence=0.99))


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """What every ablation is told: the bases, an adapter, rows and variants."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bases", type=Path, required=True)
    parser.add_argument("--source", default="smollm2-135m")
    parser.add_argument("--target", default="gemma-3-270m")
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--only", action="append", default=[], help="a variant; may be repeated")
    return parser


def main() -> None:
    """Read the arguments and print what was found."""
    parser = parser_of(__doc__)
    parser.add_argument("--strings", type=Path, required=True, help="folder; strings sampled before are used")
    parser.add_argument("--seed", type=int, default=0, help="of the strings")
    asked = parser.parse_args()
    asked.strings.mkdir(parents=True, exist_ok=True)
    found = run(asked.bases, (asked.source, asked.target), asked.adapter, asked)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
