"""Work on a layer holds one weight and little else; measured in processes of its own, with a hard limit."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks.fleet_stand import Shape, make_base, make_dense_base

LIMIT = 3
"""Times the largest weight in float32."""
SHAPES = {
    "1B": Shape("llama", 16, 2048, 32, 8, 64, 8192),
    "3B": Shape("llama", 28, 3072, 24, 8, 128, 8192),
    "8B": Shape("llama", 32, 4096, 32, 8, 128, 14336),
    "70B": Shape("llama", 80, 8192, 64, 8, 128, 28672),
}
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc"
)


def peak_of(work: str, folder: Path) -> int:
    """Bytes; with one thread, so that it gets on beside others."""
    command = [sys.executable, "-m", "tests.support.memory_of", work, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return int(done.stdout)


def largest(shape: Shape) -> int:
    return 4 * shape.width * shape.d_ff


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_reading_a_layer_holds_one_weight_however_large_the_base(tmp_path, shape):
    make_base(tmp_path / "base", shape)
    assert peak_of("factorize", tmp_path) < LIMIT * largest(shape)


@pytest.mark.parametrize("shape", [SHAPES["1B"], SHAPES["3B"]], ids=["1B", "3B"])
def test_factorizing_aligning_and_projecting_hold_one_weight(tmp_path, shape):
    make_dense_base(tmp_path / "base", replace(shape, layers=1), seed=1)
    peaks = {work: peak_of(work, tmp_path) for work in ("factorize", "align", "project", "project_together")}
    assert all(peak < LIMIT * largest(shape) for peak in peaks.values()), peaks
