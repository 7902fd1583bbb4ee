"""Time and memory of the steps of a migration on real bases; prints one JSON document.

    python tests/benchmarks/bench_migration.py --bases .cross-lora/bases --adapter examples/adapters/log-fields

Each step runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SOURCE, TARGET, RANK = "smollm2-135m", "gemma-3-270m", 320
STEPS = ("factorize source", "factorize target", "align", "project", "full svd of one layer")


def peak_mb() -> float:
    """Peak resident memory of this process, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(work: Callable[[], Any]) -> dict[str, float]:
    """Seconds of a step, and how far it raised the peak above where it began."""
    before = peak_mb()
    started = time.perf_counter()
    work()
    return {
        "seconds": time.perf_counter() - started,
        "peak_mb": peak_mb(),
        "peak_above_start_mb": peak_mb() - before,
    }


def run_step(step: str, bases: Path, adapter: Path, scratch: Path) -> dict[str, float]:
    """One step; later ones read what earlier ones wrote to `scratch`."""
    import torch

    from cross_lora_core import migration as m
    from cross_lora_core.adapters import read_adapter, updates_by_role
    from cross_lora_core.models import Role, map_layers, open_base

    cpu = torch.device("cpu")
    source, target = open_base(bases / SOURCE), open_base(bases / TARGET)
    spec = m.TransferSpec.from_request(m.MigrationRequest(source="s", targets=["t"], rank=RANK))
    layer_map = map_layers(source.layers, target.layers)
    landings = [
        m.Landing(layer, mapped, role) for layer, mapped in enumerate(layer_map) for role in target.roles
    ]

    def factorize(base: Any, name: str) -> None:
        m.write_factors(scratch / name, m.factorize_layers(base, range(base.layers), spec.factors, cpu))

    def reader(name: str) -> Callable[[int, Role], m.ModuleFactors]:
        file = m.GroupFile(scratch / name, cpu)
        return lambda layer, role: m.read_factors(file, layer, role)

    def align() -> None:
        maps = m.align_landings(landings, reader("source"), reader("target"), m.anchor_rows(source, target))
        m.write_alignments(scratch / "maps", maps)

    def project() -> None:
        updates = updates_by_role(read_adapter(adapter), source).updates
        file = m.GroupFile(scratch / "maps", cpu)
        wanted = tuple(one for one in landings if (one.source_layer, one.role) in updates)
        (moved,) = m.project_landings(
            [m.Moving(wanted, updates)], target.linear, reader("source"), reader("target"),
            lambda layer, role: m.read_alignment(file, layer, role), spec,
        )  # fmt: skip
        m.write_projections(scratch / "projected", moved)

    def full_svd() -> None:
        for role in source.roles:
            torch.linalg.svd(source.read_weight(10, role), full_matrices=False)

    work = {
        "factorize source": lambda: factorize(source, "source"),
        "factorize target": lambda: factorize(target, "target"),
        "align": align,
        "project": project,
        "full svd of one layer": full_svd,
    }[step]
    return measured(work)


def main() -> None:
    """Run every step and print the results with the machine and the versions."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bases", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        print(json.dumps(run_step(arguments.step, arguments.bases, arguments.adapter, arguments.scratch)))
        return
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        for step in STEPS:
            command = [
                sys.executable,
                __file__,
                "--bases",
                str(arguments.bases),
                "--adapter",
                str(arguments.adapter),
            ]
            command += ["--step", step, "--scratch", scratch]
            environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            results[step] = json.loads(done.stdout)
    from machine import machine

    print(json.dumps({"rank": RANK, "machine": machine(), "steps": results}, indent=2))


if __name__ == "__main__":
    main()
