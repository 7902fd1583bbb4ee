"""`factorize` beside its peers, each as loose as it may be and still capture the subspace; prints JSON.

    python tests/benchmarks/bench_factorize.py --base BASE --out docs/benchmarks/factorize.json

BASE is a folder with Qwen2.5-1.5B's shapes, read for its weights and for the spectrum that larger
matrices are given. A matrix with a given spectrum is made by Householder reflections of a diagonal one, so its
singular vectors are known exactly. Peers with settings are tried from the cheapest on until both
sides capture `CAPTURE`; the time of that setting alone counts, the median of runs in turn with
the others'. Needs scipy and scikit-learn.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import scipy.sparse.linalg
import sklearn
import sklearn.utils.extmath
import torch
from machine import machine
from torch import Tensor

from cross_lora_core import algebra
from cross_lora_core.models import Role, open_base

CAPTURE, RANK, SEED, REFLECTIONS = 0.9999, 320, 0, 16
AGAIN = 20
"""Seconds of a first run beyond which there is no other."""
SHAPES = ((1024, 4096), (8192, 3072), (14336, 4096), (28672, 8192))
"""k of 8B; the MLPs of 3B, 8B and 70B; rows, columns."""

Sides = tuple[Tensor, Tensor]
"""Left [m, k] and right [n, k] singular vectors."""


@dataclass(frozen=True)
class Case:
    """A weight, and the vectors that are to be found."""

    name: str
    weight: Tensor
    truth: Sides


def real_cases(base: Path) -> Iterator[Case]:
    """Weights of the base; their vectors by a float64 SVD."""
    opened = open_base(base)
    for layer, role in ((opened.layers // 2, Role.gate), (0, Role.down), (opened.layers // 2, Role.q)):
        weight = opened.read_weight(layer, role)
        U, _, Vh = torch.linalg.svd(weight.double(), full_matrices=False)
        yield Case(f"{role} of layer {layer}, real", weight, (U[:, :RANK], Vh[:RANK].T))


def made_cases(spectrum: Tensor, shapes: Sequence[tuple[int, int]]) -> Iterator[Case]:
    """Matrices of other sizes whose singular values are those of a real weight, stretched."""
    for rows, columns in shapes:
        yield _made(rows, columns, spectrum)


def _made(rows: int, columns: int, spectrum: Tensor) -> Case:
    few = min(rows, columns)
    S = torch.from_numpy(
        np.interp(np.linspace(0, 1, few), np.linspace(0, 1, len(spectrum)), spectrum.numpy())
    )
    drawn = torch.Generator().manual_seed(SEED)
    weight = torch.zeros(rows, columns)
    weight.diagonal().copy_(S)
    left, right = torch.eye(rows, RANK), torch.eye(columns, RANK)
    for _ in range(REFLECTIONS):
        u, v = (
            torch.nn.functional.normalize(torch.randn(n, generator=drawn), dim=0) for n in (rows, columns)
        )
        weight.addr_(u, u @ weight, alpha=-2)
        weight.addr_(weight @ v, v, alpha=-2)
        left.addr_(u, u @ left, alpha=-2)
        right.addr_(v, v @ right, alpha=-2)
    return Case(f"{rows}x{columns}, made", weight, (left, right))


def ours(weight: Tensor) -> Sides:
    """What the product does."""
    found = algebra.factorize(weight, RANK)
    return found.U, found.Vh.T


def before(weight: Tensor) -> Sides:
    """What it did before: all eigenvectors of the Gram matrix in float64."""
    tall = weight if weight.shape[0] >= weight.shape[1] else weight.T
    double = tall.double()
    right = torch.linalg.eigh(double.T @ double)[1].flip(1)[:, :RANK]
    image = double @ right
    left = image / torch.linalg.vector_norm(image, dim=0)
    return (left, right) if tall is weight else (right, left)


def full(driver: str | None) -> Callable[[Tensor], Sides]:
    """`torch.linalg.svd`, with a driver on CUDA."""

    def run(weight: Tensor) -> Sides:
        U, _, Vh = torch.linalg.svd(weight, full_matrices=False, driver=driver)
        return U[:, :RANK], Vh[:RANK].T

    return run


def lowrank(width: int, iterations: int) -> Callable[[Tensor], Sides]:
    """`torch.svd_lowrank`."""

    def run(weight: Tensor) -> Sides:
        torch.manual_seed(SEED)
        U, _, V = torch.svd_lowrank(weight, q=width, niter=iterations)
        return U[:, :RANK], V[:, :RANK]

    return run


def krylov(solver: str, tolerance: float) -> Callable[[Tensor], Sides]:
    """SciPy's ARPACK or PROPACK."""

    def run(weight: Tensor) -> Sides:
        U, S, Vh = scipy.sparse.linalg.svds(
            weight.numpy(), RANK, solver=solver, tol=tolerance, rng=np.random.default_rng(SEED)
        )
        order = np.argsort(-S)
        return torch.from_numpy(U[:, order].copy()), torch.from_numpy(Vh[order].T.copy())

    return run


def randomized(oversamples: int, iterations: int) -> Callable[[Tensor], Sides]:
    """scikit-learn's `randomized_svd`."""

    def run(weight: Tensor) -> Sides:
        U, _, Vh = sklearn.utils.extmath.randomized_svd(
            weight.numpy(), RANK, n_oversamples=oversamples, n_iter=iterations, random_state=SEED
        )
        return torch.from_numpy(U.copy()), torch.from_numpy(Vh.T.copy())

    return run


def peers(device: torch.device) -> dict[str, list[tuple[str, Callable[[Tensor], Sides]]]]:
    """Every peer with its settings, from the cheapest on."""
    found: dict[str, list[tuple[str, Callable[[Tensor], Sides]]]] = {
        "ours": [("", ours)],
        "before": [("", before)],
    }
    drivers = ("gesvd", "gesvdj", "gesvda") if device.type == "cuda" else (None,)
    found |= {f"torch.linalg.svd {one or ''}".strip(): [("", full(one))] for one in drivers}
    sketches = [(480, 4), (480, 8), (640, 8), (640, 16), (960, 16), (960, 32)]
    found["torch.svd_lowrank"] = [(f"q={q}, niter={n}", lowrank(q, n)) for q, n in sketches]
    if device.type == "cpu":
        found["scipy ARPACK"] = [(f"tol={one}", krylov("arpack", one)) for one in (1e-2, 1e-3, 0)]
        found["scipy PROPACK"] = [(f"tol={one}", krylov("propack", one)) for one in (1e-2, 1e-4, 0)]
        found["sklearn randomized_svd"] = [
            (f"n_oversamples={q - RANK}, n_iter={n}", randomized(q - RANK, n)) for q, n in sketches
        ]
    return found


def captured(found: Sides, truth: Sides) -> float:
    """The smaller capture of the two sides."""
    return min(
        algebra.subspace_capture(one.double().cpu(), two.double())
        for one, two in zip(found, truth, strict=True)
    )


def timed(work: Callable[[Tensor], Sides], weight: Tensor) -> tuple[float, Sides]:
    """Seconds of one run, and what it found."""
    started = time.perf_counter()
    found = work(weight)
    if weight.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started, found


def measure_peer(
    settings: list[tuple[str, Callable[[Tensor], Sides]]], case: Case, device: torch.device, most: float
) -> dict[str, Any]:
    """The first setting that captures enough, or the last one that was tried within `most` seconds."""
    weight, spent = case.weight.to(device), 0.0
    for setting, work in settings:
        try:
            seconds, found = timed(work, weight)
        except Exception as error:  # a peer that gives up is a result
            return {"setting": setting, "failed": f"{type(error).__name__}: {error}"[:200]}
        spent += seconds
        capture = captured(found, case.truth)
        if capture >= CAPTURE:
            return {"setting": setting, "runs": [seconds], "capture": capture}
        if spent > most:
            break
    return {"setting": setting, "not_reached_after": seconds, "capture": capture}


def roofline(device: torch.device) -> float:
    """Float32 operations a second of a large matrix product."""
    square = torch.randn(4096, 4096, device=device)
    square @ square
    return 2 * 4096**3 / min(timed(lambda one: (one @ one, one), square)[0] for _ in range(3))


def measure_case(case: Case, asked: argparse.Namespace, peak: float) -> dict[str, Any]:
    """One weight, by everybody; then again in turn, but for who takes more than `AGAIN` seconds."""
    device, result, works = torch.device(asked.device), {}, {}
    for name, settings in peers(device).items():
        if name in asked.without or (asked.only and name not in asked.only):
            continue
        result[name] = measure_peer(settings, case, device, asked.most)
        works[name] = dict(settings)[result[name]["setting"]]
        print(case.name, name, result[name], flush=True)
    reached = {name: one["runs"] for name, one in result.items() if "runs" in one}
    weight = case.weight.to(device)
    for _ in range(asked.rounds):
        for name, runs in reached.items():
            if runs[0] < AGAIN:
                runs.append(timed(works[name], weight)[0])
    rows, columns = max(case.weight.shape), min(case.weight.shape)
    floor = 2.0 * rows * columns**2 / peak
    for name, runs in reached.items():
        result[name]["seconds"] = statistics.median(runs)
    ours = result["ours"]["seconds"] if "ours" in reached else math.nan
    ratios = {name: result[name]["seconds"] / ours for name in reached}
    told = {"gram_seconds_at_peak": floor, "peers": result, "seconds_over_ours": ratios}
    print(case.name, {name: round(one, 2) for name, one in ratios.items()}, flush=True)
    return {"name": case.name, "shape": [rows, columns], **told}


def main() -> None:
    """Measure every case; the file is written anew after each."""
    asked = _parser().parse_args()
    peak = roofline(torch.device(asked.device))
    S = torch.linalg.svdvals(open_base(asked.base).read_weight(14, Role.gate))
    cases = (*(() if asked.made_only else real_cases(asked.base)), *made_cases(S, asked.shape or SHAPES))
    document: dict[str, Any] = {
        "rank": RANK,
        "capture": CAPTURE,
        "seed": SEED,
        "matrix_product_flops": peak,
        "machine": machine("scipy", "scikit-learn", "numpy"),
        "cases": [],
    }
    for case in cases:
        document["cases"].append(measure_case(case, asked, peak))
        asked.out.write_text(json.dumps(document, indent=1) + "\n")


def _shape(text: str) -> tuple[int, int]:
    rows, columns = text.split("x")
    return int(rows), int(columns)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--shape", type=_shape, action="append", default=[], help="ROWSxCOLUMNS; may be repeated"
    )
    parser.add_argument("--made-only", action="store_true", help="leave the base's own weights out")
    parser.add_argument("--only", action="append", default=[], help="a peer; may be repeated")
    parser.add_argument("--without", action="append", default=[], help="a peer; may be repeated")
    parser.add_argument("--rounds", type=int, default=4, help="runs of each after its first")
    parser.add_argument(
        "--most", type=float, default=300, help="seconds after which no further setting is tried"
    )
    return parser


if __name__ == "__main__":
    main()
