"""Measure variants of a method over the controlled pairs, each beside the default, into one JSON document.

The document is written variant by variant, and what was interrupted goes on with the next one.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench_effect import timed
from controlled_pairs import (
    RELATED,
    ControlledBases,
    Pair,
    Transfer,
    Updates,
    compared,
    measured,
    summary,
)
from machine import machine

DEFAULT = "default"

Moves = Callable[[Pair, Path, Any], Updates]
"""What a variant, a dataclass, makes of an adapter of the pair's source."""


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """What every ablation over controlled pairs is told."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bases", type=Path, required=True)
    parser.add_argument("--adapters", type=Path, required=True, help="folder; trained there where missing")
    parser.add_argument("--rows", type=int, default=60, help="development rows of a task")
    parser.add_argument("--only", action="append", default=[], help="a variant; may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="of the strings")
    parser.add_argument("--out", type=Path, required=True, help="file; variants that are in it are kept")
    return parser


def measure_variants(asked: argparse.Namespace, variants: Mapping[str, Any], moves: Moves) -> None:
    """Measure every variant that was asked for and the file has no figures of, and add them to it.

    Args:
        asked: of `parser_of`.
        variants: by name, `DEFAULT` first.
        moves: the method.
    """
    told = {"seed": asked.seed, "rows": asked.rows, "machine": machine()}
    results = kept(asked.out, told)
    bench = ControlledBases(asked.bases, asked.adapters, asked.rows)
    for name, variant in variants.items():
        if name in results or (asked.only and name not in {DEFAULT, *asked.only}):
            continue
        cost: dict[str, Any] = {}
        with timed(cost, "seconds"):
            found = list(measured(bench, lambda pair, adapter, own=variant: moves(pair, adapter, own)))
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


def judged(found: Sequence[Transfer], default: Sequence[Transfer]) -> dict[str, Any]:
    """A variant in figures: of all pairs, and of those apart and related."""
    related = {" → ".join(one) for one in RELATED}
    kinds = {"all": {True, False}, "unrelated": {False}, "related": {True}}
    told: dict[str, Any] = {}
    for kind, wanted in kinds.items():
        ours, theirs = ([one for one in each if (one.pair in related) in wanted] for each in (found, default))
        told[kind] = {"gap": summary(ours), "against the default": compared(ours, theirs)}
    return told


def tell(name: str, result: dict[str, Any]) -> None:
    """Say what a variant came to."""
    parts = []
    for kind in ("all", "unrelated", "related"):
        gap, more = result[kind]["gap"], result[kind]["against the default"]
        parts.append(
            f"{kind} {gap['mean']:.1%} ({more['mean']:+.1%}, {more['low']:+.1%} … {more['high']:+.1%})"
        )
    print(f"{name}: {', '.join(parts)}; {result['seconds']} s", file=sys.stderr, flush=True)
