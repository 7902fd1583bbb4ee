"""The plan: per adapter and target what lands, what is skipped and why; names, digests and numbers only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from cross_lora_core.migration.ladder import Ladder
from cross_lora_core.migration.landings import Landing, effect_landings, refine_landings
from cross_lora_core.migration.methods import MethodNeeds
from cross_lora_core.migration.refs import AdapterRef, BaseRef
from cross_lora_core.migration.spec import TransferSpec, content_digest
from cross_lora_core.models import FAMILIES, BaseModel, LayerGroup

__all__ = ["Plan", "PlannedItem", "PlannedTarget", "Skipped"]


@dataclass(frozen=True)
class Skipped:
    """One source module that cannot be moved, and why."""

    module: str
    reason: str


@dataclass(frozen=True)
class PlannedTarget:
    """One target base with its layer groups and the source layer of each of its layers."""

    base: BaseRef
    groups: tuple[LayerGroup, ...]
    layer_map: tuple[int, ...]

    def shared_landings(self, group: LayerGroup, source: BaseModel, opened: BaseModel) -> list[Landing]:
        """Every role both bases have: what a whole fleet shares, whatever its adapters touch.

        Args:
            group: of this target.
            source: the source base.
            opened: this target, opened.
        """
        shared = [role for role in opened.roles if role in source.roles]
        return [Landing(layer, self.layer_map[layer], role) for layer in group.layers for role in shared]


@dataclass(frozen=True)
class PlannedItem:
    """One adapter to one target. `refusal` is set when nothing will be attempted; its ladder is empty.

    Attributes:
        landings: the target modules that the adapter's own modules have a place in.
    """

    adapter: AdapterRef
    target: BaseRef
    landings: tuple[Landing, ...]
    skipped: tuple[Skipped, ...]
    refusal: str | None
    ladder: Ladder

    def landings_in(self, group: LayerGroup) -> tuple[Landing, ...]:
        """The landings whose target layer lies in a group."""
        return tuple(one for one in self.landings if one.target_layer in group.layers)


@dataclass(frozen=True)
class Plan:
    """Everything one migration will do."""

    source: BaseRef
    source_groups: tuple[LayerGroup, ...]
    targets: tuple[PlannedTarget, ...]
    items: tuple[PlannedItem, ...]
    spec: TransferSpec

    @property
    def request_digest(self) -> str:
        """Equal for two requests that would do the same work."""
        items = sorted(
            (
                one.adapter.name,
                one.adapter.location,
                one.adapter.digest,
                one.adapter.evaluation,
                one.target.digest,
                *(digest for rung in one.ladder.rungs for digest in (rung.digest, rung.transport_digest)),
            )
            for one in self.items
        )
        return content_digest([self.source.digest, self.spec.digest, items])

    @property
    def rung_plans(self) -> tuple[Plan, ...]:
        """For each transfer that is tried, a plan with the items that try it and their targets."""
        specs = dict.fromkeys(spec for item in self.items for spec in item.ladder.rungs)
        return tuple(self._rung_plan(spec) for spec in specs)

    def _rung_plan(self, spec: TransferSpec) -> Plan:
        items = tuple(item for item in self.items if spec in item.ladder.rungs)
        wanted = {item.target for item in items}
        return replace(
            self, spec=spec, items=items, targets=tuple(one for one in self.targets if one.base in wanted)
        )

    def paired_groups(
        self, needed: Callable[[MethodNeeds], bool]
    ) -> list[tuple[Plan, PlannedTarget, LayerGroup]]:
        """Every target layer group of the transfers whose method needs something of the pair of bases."""
        return [
            (rung, target, group)
            for rung in self.rung_plans
            if needed(rung.spec.needs)
            for target in rung.targets
            for group in target.groups
        ]

    def landings_of(self, item: PlannedItem) -> tuple[Landing, ...]:
        """The modules that the plan's method fills for an item."""
        if item.refusal is not None or not self.spec.needs.probes:
            return item.landings
        layers = (self.source.layers, item.target.layers)
        if self.spec.needs.training:
            return refine_landings(*layers, FAMILIES[item.target.family].roles)
        return effect_landings(*layers)

    def landings_in(self, item: PlannedItem, group: LayerGroup) -> tuple[Landing, ...]:
        """Those whose target layer lies in a group."""
        return tuple(one for one in self.landings_of(item) if one.target_layer in group.layers)

    def skipped_of(self, item: PlannedItem) -> tuple[Skipped, ...]:
        """What of the adapter the plan's method leaves behind; nothing where the source runs with it on."""
        return () if self.spec.needs.probes else item.skipped

    def stored_spans(self, item: PlannedItem) -> tuple[tuple[int, int], ...]:
        """First and last layer of each object that an item's updates are stored in."""
        if self.spec.needs.training:
            return ((0, item.target.layers - 1),)
        groups = [one for one in self.target_of(item).groups if self.landings_in(item, one)]
        return tuple((one.first, one.last) for one in groups)

    def target_of(self, item: PlannedItem) -> PlannedTarget:
        """The planned target an item belongs to."""
        return next(one for one in self.targets if one.base == item.target)
