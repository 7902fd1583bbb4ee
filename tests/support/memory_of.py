"""Peak memory of one piece of work in a process of its own, above where its imports left it.

    python -m tests.support.memory_of factorize|align|project|project_together FOLDER

FOLDER holds `base`, and takes `factors`, `maps` and `projections`: each step reads what those before it
wrote. Prints the peak of resident memory above the baseline, in bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from cross_lora_core.algebra import LoraFactors
from cross_lora_core.algebra.eigenvectors import largest_eigenvectors
from cross_lora_core.migration import (
    GroupFile,
    Landing,
    MigrationRequest,
    ModuleFactors,
    Moving,
    TransferSpec,
    align_landings,
    factorize_layers,
    project_landings,
    read_alignment,
    read_factors,
    round_projected,
    write_alignments,
    write_factors,
    write_projections,
)
from cross_lora_core.migration.spec import ANCHOR_TOKENS
from cross_lora_core.models import BaseModel, Role, open_base
from tasks.adapters_in_memory import ADAPTERS_TOGETHER

CPU, ADAPTER_RANK = torch.device("cpu"), 16
SPEC = TransferSpec.from_request(MigrationRequest(source="s", targets=["t"], method="cross-lora", rank=320))


def factorize(base: BaseModel, folder: Path) -> None:
    """The first layer's weights."""
    write_factors(folder / "factors", factorize_layers(base, [0], SPEC.factors, CPU))


def align(base: BaseModel, folder: Path) -> None:
    """The first layer with itself."""
    read, anchor = _factors(folder), torch.randn(ANCHOR_TOKENS, base.d_model)
    write_alignments(folder / "maps", align_landings(_landings(base), read, read, (anchor, anchor)))


def project(base: BaseModel, folder: Path) -> None:
    """One adapter's updates of the first layer."""
    _project(base, folder, 1)


def project_together(base: BaseModel, folder: Path) -> None:
    """Those of as many adapters as a task carries at once."""
    _project(base, folder, ADAPTERS_TOGETHER)


def _project(base: BaseModel, folder: Path, adapters: int) -> None:
    read, maps = _factors(folder), GroupFile(folder / "maps", CPU)
    moving = [
        Moving(tuple(_landings(base)), {(0, role): _update(base, role) for role in base.roles})
        for _ in range(adapters)
    ]
    moved = project_landings(moving, base.linear, read, read, partial(read_alignment, maps), SPEC)
    for number, one in enumerate(moved):
        write_projections(folder / f"projections-{number}", round_projected(one, base, SPEC))


def _factors(folder: Path) -> Callable[[int, Role], ModuleFactors]:
    return partial(read_factors, GroupFile(folder / "factors", CPU))


def _landings(base: BaseModel) -> list[Landing]:
    return [Landing(0, 0, role) for role in base.roles]


def _update(base: BaseModel, role: Role) -> LoraFactors:
    linear = base.linear(0, role)
    return LoraFactors(torch.randn(ADAPTER_RANK, linear.d_in), torch.randn(linear.d_out, ADAPTER_RANK))


def resident(field: str) -> int:
    """`VmRSS` or its peak `VmHWM` of this process, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def load_libraries() -> None:
    """Bring in the code that linear algebra loads when it is first used; it is no part of the work."""
    for dtype in (torch.float32, torch.float64):
        small = torch.randn(96, 96, dtype=dtype)
        lower = torch.linalg.cholesky(small @ small.T + torch.eye(96, dtype=dtype))
        torch.linalg.eigh(torch.linalg.solve_triangular(lower, small @ small.T, upper=False))
        torch.linalg.svd(small)
        largest_eigenvectors(small @ small.T, 8)


def main() -> None:
    """Do the work, print what it took."""
    work, folder = globals()[sys.argv[1]], Path(sys.argv[2])
    load_libraries()
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of the imports
    before = resident("VmRSS")
    work(open_base(folder / "base"), folder)
    print(resident("VmHWM") - before)


if __name__ == "__main__":
    main()
