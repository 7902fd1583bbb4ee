"""Which stored factor objects a target layer group reads, decided by the plan alone."""

from __future__ import annotations

from dataclasses import dataclass

from cross_lora_core.migration.keys import factors_key
from cross_lora_core.migration.plan import Plan, PlannedTarget
from cross_lora_core.migration.refs import BaseRef
from cross_lora_core.migration.spec import FactorSpec
from cross_lora_core.models import LayerGroup

__all__ = ["FactorObject", "FactorSource"]


@dataclass(frozen=True)
class FactorObject:
    """The key of one stored layer group of factors, and the layers in it."""

    group: LayerGroup
    key: str

    @classmethod
    def of(cls, base: BaseRef, group: LayerGroup, spec: FactorSpec) -> FactorObject:
        """The object that holds a base's layer group."""
        return cls(group, factors_key(base.digest, spec, group.first, group.last))


@dataclass(frozen=True)
class FactorSource:
    """Factor objects of the source and of the target base that one target layer group reads."""

    source: tuple[FactorObject, ...]
    target: tuple[FactorObject, ...]

    @classmethod
    def of(cls, plan: Plan, target: PlannedTarget, group: LayerGroup) -> FactorSource:
        """Everything a worker needs to project one target layer group."""
        layers = {target.layer_map[layer] for layer in range(group.first, group.last + 1)}
        needed = [
            one for one in plan.source_groups if any(one.first <= layer <= one.last for layer in layers)
        ]
        spec = plan.spec
        return cls(
            tuple(
                FactorObject.of(plan.source, one, spec.factors) for one in needed if spec.needs.source_factors
            ),
            (FactorObject.of(target.base, group, spec.factors),) if spec.needs.target_factors else (),
        )
