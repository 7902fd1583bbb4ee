"""Look at a written adapter again, as a loader would: does every module have a place in the target?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from cross_lora_core import algebra
from cross_lora_core.adapters.reading import Adapter, read_adapter
from cross_lora_core.adapters.roles import updates_by_role
from cross_lora_core.adapters.writing import SERVABLE_RANKS
from cross_lora_core.errors import AdapterRefused
from cross_lora_core.models import BaseModel

__all__ = ["StructureReport", "verify_adapter"]


@dataclass(frozen=True)
class StructureReport:
    """Outcome of the file check.

    Attributes:
        expected: modules that should be there.
        landed: modules that are there and fit the target.
        problems: everything that is wrong, in words; empty if nothing is.
    """

    expected: int
    landed: int
    problems: tuple[str, ...]


def verify_adapter(folder: Path, base: BaseModel, expected: int | None = None) -> StructureReport:
    """Check a PEFT folder against its target: N of N modules, finite, shapes, one rank, its own base.

    Args:
        folder: of the adapter.
        base: the target.
        expected: modules that should be there; by default as many as the file has.
    """
    try:
        adapter = read_adapter(folder)
        found = updates_by_role(adapter, base)
    except AdapterRefused as refusal:
        return StructureReport(expected or 0, 0, (str(refusal),))
    wanted = len(adapter.modules) if expected is None else expected
    problems = [f"{one.path}: {one.reason}" for one in found.skipped]
    if found.modules != wanted:
        problems.append(f"{found.modules} of {wanted} modules landed")
    problems += _config_problems(folder, adapter, base)
    return StructureReport(wanted, found.modules, tuple(problems))


def _config_problems(folder: Path, adapter: Adapter, base: BaseModel) -> list[str]:
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    problems = []
    if adapter.base_name != base.name:
        problems.append(f"base_model_name_or_path is {adapter.base_name}, not {base.name}")
    ranks = {one.update.rank for one in adapter.modules}
    if ranks != {config["r"]} or config["r"] not in SERVABLE_RANKS:
        problems.append(f"ranks {sorted(ranks)} are not one servable rank equal to r = {config['r']}")
    norms = [algebra.frobenius_norm(one.update) for one in adapter.modules]
    if max(norms) > 1e6:
        problems.append(f"an update has norm {max(norms):.3g}; its scale cannot be right")
    return problems
