"""Look at a written adapter again, as a loader would: does every module have a place in the target?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cross_lora_core import algebra
from cross_lora_core.adapters.reading import read_adapter
from cross_lora_core.adapters.roles import updates_by_role
from cross_lora_core.adapters.serving import serving_problems
from cross_lora_core.errors import AdapterRefused
from cross_lora_core.models import BaseModel

__all__ = ["StructureReport", "verify_adapter"]

_LARGEST_NORM = 1e6


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
    """Check a PEFT folder against its target: N of N modules, finite, a scale that can be right, servable.

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
    problems += serving_problems(folder, base)
    norms = [algebra.frobenius_norm(one.update) for one in adapter.modules]
    if max(norms) > _LARGEST_NORM:
        problems.append(f"an update has norm {max(norms):.3g}; its scale cannot be right")
    return StructureReport(wanted, found.modules, tuple(problems))
