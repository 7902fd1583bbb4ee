"""What a fleet shares: one task run per layer group of a base, and per layer group of a pair of bases."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, TypeVar

from prefect.futures import PrefectFuture

from cross_lora_core.migration import (
    BaseRef,
    FactorSource,
    FactorSpec,
    Plan,
    PlannedTarget,
    alignment_key,
    factors_key,
    maps_key,
    streams_key,
)
from cross_lora_core.models import LayerGroup
from flows.progress import current_listener, watched
from tasks.align_bases import align_group
from tasks.compare_streams import compare_streams
from tasks.factorize_base import factorize_group
from tasks.map_responses import map_group

__all__ = ["GroupFutures", "factors_of", "inputs_of", "submit_shared"]

_Future = PrefectFuture[Any]
_Job = TypeVar("_Job")
GroupFutures = dict[str, _Future]
"""By key of what is stored, so that methods which need the same share a task run."""


def submit_shared(plan: Plan) -> GroupFutures:
    """Submit factorizations, alignments and maps that the transfers of the plan's items need."""
    factors = _submit_factors(plan)
    return factors | _submit_alignments(plan, factors) | _submit_maps(plan)


def inputs_of(plan: Plan, target: PlannedTarget, group: LayerGroup, shared: GroupFutures) -> list[_Future]:
    """The task runs that a projection onto a target's layer group waits for."""
    keys = (one(plan, target, group) for one in (_alignment_key, _maps_key, _streams_key))
    paired = [shared[key] for key in keys if key in shared]
    return paired or factors_of(plan, target, group, shared)


def _submit_factors(plan: Plan) -> GroupFutures:
    """One task run per (base, layer group, factorization) that a method reads."""
    jobs = {key: job for rung in plan.rung_plans for key, job in _factor_jobs(rung).items()}
    current_listener().expect("factorize", len(jobs))
    return {
        key: watched("factorize", factorize_group.submit(base, group, spec))
        for key, (base, group, spec) in _from_anywhere(list(jobs.items()))
    }


def _factor_jobs(plan: Plan) -> dict[str, tuple[BaseRef, LayerGroup, FactorSpec]]:
    needs, spec = plan.spec.needs, plan.spec.factors
    jobs = [(plan.source, group) for group in plan.source_groups if needs.source_factors]
    jobs += [(one.base, group) for one in plan.targets for group in one.groups if needs.target_factors]
    return {
        factors_key(base.digest, spec, group.first, group.last): (base, group, spec) for base, group in jobs
    }


def _from_anywhere(jobs: Sequence[_Job]) -> list[_Job]:
    """The jobs from a random one on: two fleets that share them do not follow each other step by step."""
    start = random.randrange(len(jobs)) if jobs else 0  # noqa: S311
    return [*jobs[start:], *jobs[:start]]


def _submit_alignments(plan: Plan, factors: GroupFutures) -> GroupFutures:
    """One task run per (pair of bases, target layer group) of every method that aligns."""
    jobs = plan.paired_groups(lambda needs: needs.alignment)
    current_listener().expect("align", len(jobs))
    return {
        _alignment_key(rung, target, group): watched(
            "align",
            align_group.submit(
                rung.source, target, group, rung.spec, FactorSource.of(rung, target, group),
                return_state=False, wait_for=factors_of(rung, target, group, factors),
            ),
        )
        for rung, target, group in jobs
    }  # fmt: skip


def _alignment_key(plan: Plan, target: PlannedTarget, group: LayerGroup) -> str:
    return alignment_key(plan.source, target.base, plan.spec, group.first, group.last)


def _submit_maps(plan: Plan) -> GroupFutures:
    """One task run per (pair of bases, target layer group) of every method that maps bases."""
    jobs = {_maps_key(*job): (map_group, *job) for job in plan.paired_groups(lambda needs: needs.maps)} | {
        _streams_key(*job): (compare_streams, *job) for job in plan.paired_groups(lambda needs: needs.streams)
    }
    current_listener().expect("map", len(jobs))
    return {
        key: watched("map", mapping.submit(rung.source, target, group, rung.spec, return_state=False))
        for key, (mapping, rung, target, group) in jobs.items()
    }


def _maps_key(plan: Plan, target: PlannedTarget, group: LayerGroup) -> str:
    return maps_key(plan.source, target.base, plan.spec, group.first, group.last)


def _streams_key(plan: Plan, target: PlannedTarget, group: LayerGroup) -> str:
    return streams_key(plan.source, target.base, plan.spec.streams, group.first, group.last)


def factors_of(plan: Plan, target: PlannedTarget, group: LayerGroup, factors: GroupFutures) -> list[_Future]:
    """The factorizations behind a projection onto a target's layer group."""
    source = FactorSource.of(plan, target, group)
    return [factors[one.key] for one in (*source.source, *source.target) if one.key in factors]
