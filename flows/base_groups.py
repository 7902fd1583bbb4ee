"""What a fleet shares: one task run per layer group of a base, and per layer group of a pair of bases."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, TypeVar

from prefect.futures import PrefectFuture

from cross_lora_core.migration import FactorSource, Plan, PlannedTarget
from cross_lora_core.models import LayerGroup
from flows.progress import current_listener, watched
from tasks.align_bases import align_group
from tasks.factorize_base import factorize_group

__all__ = ["GroupFutures", "factors_of", "inputs_of", "submit_shared"]

_Future = PrefectFuture[Any]
_Job = TypeVar("_Job")
GroupFutures = dict[tuple[str, int], _Future]
"""By what was asked for (a base's digest, or `align` and the target's) and index of the layer group."""


def submit_shared(plan: Plan, wanted: set[str]) -> GroupFutures:
    """Submit factorizations and alignments that the wanted targets (digests) need."""
    factors = _submit_factors(plan, wanted)
    return factors | _submit_alignments(plan, wanted, factors)


def inputs_of(plan: Plan, target: PlannedTarget, group: LayerGroup, shared: GroupFutures) -> list[_Future]:
    """The task runs that a projection onto a target's layer group waits for."""
    aligned = shared.get(("align " + target.base.digest, group.index))
    return [aligned] if aligned else factors_of(plan, target, group, shared)


def _submit_factors(plan: Plan, wanted: set[str]) -> GroupFutures:
    """One task run per (base, layer group) the method reads."""
    jobs = [(plan.source, group) for group in plan.source_groups if plan.spec.needs.source_factors and wanted]
    jobs += [
        (target.base, group)
        for target in plan.targets
        for group in target.groups
        if plan.spec.needs.target_factors and target.base.digest in wanted
    ]
    jobs = list(dict.fromkeys(jobs))
    current_listener().expect("factorize", len(jobs))
    return {
        (base.digest, group.index): watched(
            "factorize", factorize_group.submit(base, group, plan.spec.factors)
        )
        for base, group in _from_anywhere(jobs)
    }


def _from_anywhere(jobs: Sequence[_Job]) -> list[_Job]:
    """The jobs from a random one on: two fleets that share them do not follow each other step by step."""
    start = random.randrange(len(jobs)) if jobs else 0  # noqa: S311
    return [*jobs[start:], *jobs[:start]]


def _submit_alignments(plan: Plan, wanted: set[str], factors: GroupFutures) -> GroupFutures:
    """One task run per (pair of bases, target layer group)."""
    if not plan.spec.needs.alignment:
        return {}
    jobs = [
        (target, group) for target in plan.targets if target.base.digest in wanted for group in target.groups
    ]
    current_listener().expect("align", len(jobs))
    return {
        ("align " + target.base.digest, group.index): watched(
            "align",
            align_group.submit(
                plan.source, target, group, plan.spec, FactorSource.of(plan, target, group),
                return_state=False, wait_for=factors_of(plan, target, group, factors),
            ),
        )
        for target, group in jobs
    }  # fmt: skip


def factors_of(plan: Plan, target: PlannedTarget, group: LayerGroup, factors: GroupFutures) -> list[_Future]:
    """The factorizations behind a projection onto a target's layer group."""
    source = FactorSource.of(plan, target, group).source
    keys = [(plan.source.digest, one.group.index) for one in source]
    return [factors[key] for key in [*keys, (target.base.digest, group.index)] if key in factors]
