"""A pair of bases from nothing to aligned: seconds of one layer, times the layers; prints one JSON document.

    python tests/benchmarks/bench_cold.py --source BASE --scratch FOLDER

BASE has Qwen2.5-1.5B's shapes and is read for a layer of real weights; the target is a layer of
Llama-3.2-3B's shapes with a spectrum that falls slowly. The paper's Table 6 gives 349 s for one adapter, all
roles, rank 320, of such a pair on a V100. What an adapter costs on top is `bench_fleet.py`'s to say.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from fleet_stand import TARGET, Shape, make_dense_base
from machine import machine

from cross_lora_core.migration import (
    GroupFile,
    Landing,
    MigrationRequest,
    TransferSpec,
    align_landings,
    factorize_layers,
    read_factors,
    write_alignments,
    write_factors,
)
from cross_lora_core.migration.spec import ANCHOR_TOKENS
from cross_lora_core.models import BaseModel, open_base

CPU, RANK, SEED = torch.device("cpu"), 320, 0
SPEC = TransferSpec.from_request(MigrationRequest(source="s", targets=["t"], method="cross-lora", rank=RANK))


@contextmanager
def clocked(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Note how long the block took."""
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


def measure(source: BaseModel, layer: int, target: BaseModel, scratch: Path) -> dict[str, float]:
    """Seconds of factorizing a layer of each base and of aligning the two."""
    seconds: dict[str, float] = {}
    for name, base, one in (("source", source, layer), ("target", target, 0)):
        with clocked(seconds, f"factorize a layer of the {name}"):
            write_factors(scratch / f"{name}-factors", factorize_layers(base, [one], SPEC.factors, CPU))
    ours, theirs = (
        partial(read_factors, GroupFile(scratch / f"{name}-factors", CPU)) for name in ("source", "target")
    )
    anchor = tuple(torch.randn(ANCHOR_TOKENS, base.d_model) for base in (source, target))
    landings = [Landing(0, layer, role) for role in target.roles]
    with clocked(seconds, "align a layer"):
        write_alignments(scratch / "maps", align_landings(landings, ours, theirs, (anchor[0], anchor[1])))
    return seconds


def main() -> None:
    """Measure, extrapolate, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    asked = parser.parse_args()
    asked.scratch.mkdir(parents=True, exist_ok=True)
    one_layer = Shape(**{**vars(TARGET), "layers": 1})
    source, target = (
        open_base(asked.source),
        open_base(make_dense_base(asked.scratch / "target", one_layer, SEED)),
    )
    measure(source, 0, target, asked.scratch)  # loads the libraries
    seconds = measure(source, source.layers // 2, target, asked.scratch)
    layers = {"source": source.layers, "target": TARGET.layers}
    total = sum(
        one * (layers["source"] if "source" in name else layers["target"]) for name, one in seconds.items()
    )
    told = {"rank": RANK, "seed": SEED, "machine": machine(), "threads": torch.get_num_threads()}
    print(
        json.dumps(
            {**told, "layers": layers, "seconds": seconds, "all layers, extrapolated": total}, indent=1
        )
    )


if __name__ == "__main__":
    main()
