"""What a plan will cost: bytes to be stored and seconds of computing, before it runs.

Seconds come from one factorization timed on this machine and scaled by the operation count. They leave out
evaluation, the start of Prefect, and every method that runs the bases: how long a base takes for a token is
known once it is in memory, and planning loads none.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from cross_lora_core.adapters import servable_rank
from cross_lora_core.algebra import factorize
from cross_lora_core.migration.keys import alignment_key, factors_key, maps_key, streams_key
from cross_lora_core.migration.maps import input_site
from cross_lora_core.migration.plan import Plan, PlannedItem
from cross_lora_core.migration.refs import BaseRef
from cross_lora_core.models import BaseModel, LayerGroup, factor_bytes

__all__ = ["Estimate", "estimate_plan", "item_output_bytes"]

_Job = tuple[BaseRef, LayerGroup, str]
"""A base, a layer group of it, and the key of what is stored for the two."""

_PROBE = 512
_DTYPE_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}


@dataclass(frozen=True)
class Estimate:
    """Cost of what is not in the store yet.

    Attributes:
        factor_bytes: base factors to be written.
        alignment_bytes: alignments and response maps to be written.
        output_bytes: adapters to be written.
        seconds: computing time on one worker, runs of the models not counted.
        reused: layer-group objects that are already stored.
        untimed: methods that run the bases, of whose time `seconds` has nothing.
    """

    factor_bytes: int
    alignment_bytes: int
    output_bytes: int
    seconds: float
    reused: int
    untimed: tuple[str, ...]


@lru_cache(maxsize=1)
def _seconds_per_operation() -> float:
    weight = torch.randn(_PROBE, _PROBE, generator=torch.Generator().manual_seed(0))
    factorize(weight, _PROBE // 2)
    started = time.perf_counter()
    factorize(weight, _PROBE // 2)
    return (time.perf_counter() - started) / _PROBE**3


def _group_operations(base: BaseModel, group: LayerGroup) -> float:
    """Operations of a Gram factorization, in units of the probe's `small^2 * large`."""
    shapes = [base.linear(group.first, role) for role in base.roles]
    return (group.last - group.first + 1) * float(
        sum(min(one.d_out, one.d_in) ** 2 * max(one.d_out, one.d_in) for one in shapes)
    )


def item_output_bytes(item: PlannedItem, target: BaseModel, plan: Plan) -> int:
    """Size of the adapter files one item will write, one per method that is tried."""
    return sum(_rung_bytes(item, target, replace(plan, spec=spec)) for spec in item.ladder.rungs)


def _rung_bytes(item: PlannedItem, target: BaseModel, plan: Plan) -> int:
    spec = plan.spec
    rank = spec.fit_rank if spec.needs.probes else spec.output_rank or max(item.adapter.rank, 1)
    modules = [target.linear(one.target_layer, one.role) for one in plan.landings_of(item)]
    width = sum(one.d_out + one.d_in for one in modules)
    return width * servable_rank(rank) * _DTYPE_BYTES[spec.output_dtype]


def estimate_plan(
    plan: Plan, source: BaseModel, targets: dict[str, BaseModel], is_stored: Callable[[str], bool]
) -> Estimate:
    """Add up what is missing.

    Args:
        plan: the plan.
        source: its source base, opened.
        targets: its target bases by digest, opened.
        is_stored: whether the store holds a key.
    """
    bases = {plan.source.digest: source, **targets}
    rank = plan.spec.rank
    factors, alignments = _factor_jobs(plan), _alignment_jobs(plan)
    maps, streams = _map_jobs(plan), _stream_jobs(plan)
    missing = [(bases[ref.digest], group) for ref, group, key in factors if not is_stored(key)]
    unaligned = [(bases[ref.digest], group) for ref, group, key in alignments if not is_stored(key)]
    unmapped = [(bases[ref.digest], group) for ref, group, key in maps if not is_stored(key)]
    unlike = [(bases[ref.digest], group) for ref, group, key in streams if not is_stored(key)]
    operations = sum(_group_operations(base, group) for base, group in missing)
    operations += sum(_alignment_operations(base, group, rank) for base, group in unaligned)
    return Estimate(
        factor_bytes=sum(_factor_bytes(base, group, rank) for base, group in missing),
        alignment_bytes=sum(_alignment_bytes(base, group, rank) for base, group in unaligned)
        + sum(_map_bytes(source, base, group) for base, group in unmapped)
        + sum(_stream_bytes(source, base, group) for base, group in unlike),
        output_bytes=sum(item_output_bytes(item, targets[item.target.digest], plan) for item in plan.items),
        seconds=operations * _seconds_per_operation(),
        reused=len(factors + alignments + maps + streams) - len(missing + unaligned + unmapped + unlike),
        untimed=_untimed(plan),
    )


def _untimed(plan: Plan) -> tuple[str, ...]:
    specs = dict.fromkeys(spec for item in plan.items for spec in item.ladder.rungs)
    return tuple(str(one.method) for one in specs if one.needs.probes or one.needs.maps)


def _factor_jobs(plan: Plan) -> list[_Job]:
    return list(dict.fromkeys(job for rung in plan.rung_plans for job in _factor_jobs_of_rung(rung)))


def _factor_jobs_of_rung(plan: Plan) -> list[_Job]:
    needs = plan.spec.needs
    pairs = [(plan.source, group) for group in plan.source_groups if needs.source_factors]
    pairs += [(one.base, group) for one in plan.targets for group in one.groups if needs.target_factors]
    return [
        (base, group, factors_key(base.digest, plan.spec.factors, group.first, group.last))
        for base, group in pairs
    ]


def _alignment_jobs(plan: Plan) -> list[_Job]:
    return [
        (one.base, group, alignment_key(rung.source, one.base, rung.spec, group.first, group.last))
        for rung, one, group in plan.paired_groups(lambda needs: needs.alignment)
    ]


def _map_jobs(plan: Plan) -> list[_Job]:
    return [
        (one.base, group, maps_key(rung.source, one.base, rung.spec, group.first, group.last))
        for rung, one, group in plan.paired_groups(lambda needs: needs.maps)
    ]


def _stream_jobs(plan: Plan) -> list[_Job]:
    jobs = [
        (one.base, group, streams_key(rung.source, one.base, rung.spec.streams, group.first, group.last))
        for rung, one, group in plan.paired_groups(lambda needs: needs.streams)
    ]
    return list(dict.fromkeys(jobs))


def _stream_bytes(source: BaseModel, target: BaseModel, group: LayerGroup) -> int:
    """Second moments of one residual stream, and of the two together, in float32."""
    return 4 * len(group.layers) * source.d_model * (source.d_model + target.d_model)


def _map_bytes(source: BaseModel, target: BaseModel, group: LayerGroup) -> int:
    """One map of outputs a module, and one of inputs for all that read the same tensor."""
    shared = [role for role in target.roles if role in source.roles]
    pairs = [(role, source.linear(0, role), target.linear(group.first, role)) for role in shared]
    width = sum(ours.d_out * theirs.d_out for _, ours, theirs in pairs)
    width += sum(ours.d_in * theirs.d_in for role, ours, theirs in pairs if input_site(role) is role)
    return 4 * len(group.layers) * width


def _factor_bytes(base: BaseModel, group: LayerGroup, rank: int) -> int:
    return sum(factor_bytes(base, layer, rank) for layer in range(group.first, group.last + 1))


def _alignment_bytes(base: BaseModel, group: LayerGroup, rank: int) -> int:
    ranks = [
        min(rank, one.d_out, one.d_in) for one in (base.linear(group.first, role) for role in base.roles)
    ]
    return (group.last - group.first + 1) * sum(2 * 4 * one**2 for one in ranks)


def _alignment_operations(base: BaseModel, group: LayerGroup, rank: int) -> float:
    """Two polar factors of `rank x rank` a module; each costs about as much as a square factorization."""
    return (group.last - group.first + 1) * len(base.roles) * 2.0 * rank**3
