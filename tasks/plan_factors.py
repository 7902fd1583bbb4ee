"""Decide which layer groups of a base are factorized, the same ones a migration would ask for."""

from __future__ import annotations

from dataclasses import dataclass

from prefect import task

from cross_lora_core.migration import BaseRef, FactorSpec, base_ref, find_base, register_base
from cross_lora_core.models import LayerGroup, layer_groups
from cross_lora_core.settings import load_settings
from tasks.runtime import TASK_OPTIONS, open_catalog

__all__ = ["FactorPlan", "plan_factors"]


@dataclass(frozen=True)
class FactorPlan:
    """A base and the layer groups of it that will be factorized."""

    base: BaseRef
    groups: tuple[LayerGroup, ...]
    spec: FactorSpec


@task(name="plan", task_run_name="plan factors of {base}", **TASK_OPTIONS)
def plan_factors(base: str, rank: int, anchor: str) -> FactorPlan:
    """Read a base, register it if need be, and cut it into layer groups."""
    with open_catalog().begin() as work:
        opened = find_base(work, base)
        register_base(work, opened)
    groups = layer_groups(opened, rank=rank, byte_limit=load_settings().group_bytes // 2)
    return FactorPlan(base_ref(opened), groups, FactorSpec(rank, folded=anchor == "tokens"))
