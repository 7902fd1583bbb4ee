"""The plan: per adapter and target what lands, what is skipped and why, before anything is computed.

A plan is a frozen value of names, digests and numbers. It travels between
tasks and is printed by `cross-lora plan`; tensors never enter it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from cross_lora_core.adapters import Adapter, RoleUpdates, read_adapter, updates_by_role
from cross_lora_core.errors import AdapterRefused
from cross_lora_core.migration.ladder import Ladder, PairFacts, build_ladder
from cross_lora_core.migration.landings import Landing, effect_landings
from cross_lora_core.migration.methods import Method, MethodNeeds
from cross_lora_core.migration.similarity import BaseSimilarity, base_similarity
from cross_lora_core.migration.spec import TransferSpec, content_digest
from cross_lora_core.models import BaseModel, LayerGroup, layer_groups, map_layers

__all__ = [
    "AdapterCandidate",
    "AdapterRef",
    "BaseRef",
    "Plan",
    "PlannedItem",
    "PlannedTarget",
    "Skipped",
    "base_ref",
    "make_plan",
]

TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class BaseRef:
    """A base model, identified by content and findable by location (a path or an s3:// URL).

    Attributes:
        digest: of the config and the weights.
        tokenizer: sha256 of `tokenizer.json`, empty if there is none; it decides which tokens are shared.
    """

    name: str
    location: str
    digest: str
    tokenizer: str
    revision: str | None
    family: str
    layers: int
    d_model: int


@dataclass(frozen=True)
class AdapterCandidate:
    """An adapter somebody wants moved; not read yet."""

    name: str
    location: str
    evaluation: str | None = None
    owner: str | None = None


@dataclass(frozen=True)
class AdapterRef:
    """An adapter that was read: what it is and what it needs. `digest` is empty if it was refused unread."""

    name: str
    location: str
    digest: str
    evaluation: str | None
    owner: str | None
    base_name: str | None
    rank: int
    scaling: float | None
    variant: str


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
                *(rung.digest for rung in one.ladder.rungs if self.spec.method is Method.AUTO),
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
        if self.spec.method is Method.EFFECT and item.refusal is None:
            return effect_landings(self.source.layers, item.target.layers)
        return item.landings

    def landings_in(self, item: PlannedItem, group: LayerGroup) -> tuple[Landing, ...]:
        """Those whose target layer lies in a group."""
        return tuple(one for one in self.landings_of(item) if one.target_layer in group.layers)

    def skipped_of(self, item: PlannedItem) -> tuple[Skipped, ...]:
        """What of the adapter the plan's method leaves behind; `effect` runs the source with all of it."""
        return () if self.spec.method is Method.EFFECT else item.skipped

    def target_of(self, item: PlannedItem) -> PlannedTarget:
        """The planned target an item belongs to."""
        return next(one for one in self.targets if one.base == item.target)


@dataclass(frozen=True)
class _Pair:
    """Two opened bases while items are planned."""

    source: BaseModel
    target: BaseModel
    planned: PlannedTarget
    similarity: BaseSimilarity | None

    @property
    def tokenizers(self) -> bool:
        return self.source.files.has(TOKENIZER_FILE) and self.target.files.has(TOKENIZER_FILE)

    def facts(self, *, equal_shapes: bool, evaluation: bool) -> PairFacts:
        return PairFacts(
            same_weights=self.source.digest == self.target.digest,
            equal_shapes=equal_shapes,
            similarity=self.similarity,
            tokenizers=self.tokenizers,
            evaluation=evaluation,
        )


def base_ref(base: BaseModel) -> BaseRef:
    """The value that stands for an opened base between tasks."""
    tokenizer = base.files.read(TOKENIZER_FILE) if base.files.has(TOKENIZER_FILE) else b""
    return BaseRef(
        name=base.name,
        location=base.location,
        digest=base.digest,
        tokenizer=hashlib.sha256(tokenizer).hexdigest() if tokenizer else "",
        revision=base.revision,
        family=base.family,
        layers=base.layers,
        d_model=base.d_model,
    )


def make_plan(
    source: BaseModel,
    targets: Sequence[BaseModel],
    candidates: Iterable[AdapterCandidate],
    spec: TransferSpec,
    group_bytes: int,
    similarity: Callable[[BaseModel, BaseModel], BaseSimilarity] = base_similarity,
) -> Plan:
    """Read every adapter's shapes and decide what happens to each of its modules.

    Args:
        source: the base the adapters were trained on.
        targets: the bases to move them to.
        candidates: the adapters, not read yet; a bad one becomes a refused item, never an exception.
        spec: how updates are carried over.
        group_bytes: upper bound of a layer group's factors, in bytes.
        similarity: of two bases; asked for where the method is `auto`.
    """
    planned = tuple(_planned_target(source, target, spec, group_bytes) for target in targets)
    auto = spec.method is Method.AUTO
    pairs = [
        _Pair(source, target, one, similarity(source, target) if auto else None)
        for target, one in zip(targets, planned, strict=True)
    ]
    items = tuple(item for candidate in candidates for item in _items_of(candidate, source, pairs, spec))
    groups = layer_groups(source, rank=spec.rank, byte_limit=group_bytes // 2)
    return Plan(base_ref(source), groups, planned, items, spec)


def _planned_target(
    source: BaseModel, target: BaseModel, spec: TransferSpec, group_bytes: int
) -> PlannedTarget:
    groups = layer_groups(target, rank=spec.rank, byte_limit=group_bytes // 2)
    return PlannedTarget(base_ref(target), groups, map_layers(source.layers, target.layers))


def _items_of(
    candidate: AdapterCandidate, source: BaseModel, pairs: list[_Pair], spec: TransferSpec
) -> list[PlannedItem]:
    try:
        adapter = read_adapter(candidate.location, name=candidate.name)
        updates = updates_by_role(adapter, source)
    except AdapterRefused as refusal:
        ref = _unread(candidate)
        return [PlannedItem(ref, pair.planned.base, (), (), str(refusal), Ladder(())) for pair in pairs]
    ref = _adapter_ref(candidate, adapter, updates)
    return [_item(ref, updates, pair, spec) for pair in pairs]


def _unread(candidate: AdapterCandidate) -> AdapterRef:
    return AdapterRef(
        candidate.name,
        candidate.location,
        "",
        candidate.evaluation,
        candidate.owner,
        None,
        0,
        None,
        "unknown",
    )


def _adapter_ref(candidate: AdapterCandidate, adapter: Adapter, updates: RoleUpdates) -> AdapterRef:
    scalings = {update.scaling for update in updates.updates.values()}
    return AdapterRef(
        name=candidate.name,
        location=candidate.location,
        digest=adapter.digest,
        evaluation=candidate.evaluation,
        owner=candidate.owner,
        base_name=adapter.base_name,
        rank=max(update.rank for update in updates.updates.values()),
        scaling=scalings.pop() if len(scalings) == 1 else None,
        variant=adapter.variant,
    )


def _item(ref: AdapterRef, updates: RoleUpdates, pair: _Pair, spec: TransferSpec) -> PlannedItem:
    source, target, planned = pair.source, pair.target, pair.planned
    landings = tuple(
        Landing(layer, mapped, role)
        for layer, mapped in enumerate(planned.layer_map)
        for role in target.roles
        if (mapped, role) in updates.updates
    )
    skipped = [Skipped(one.path, one.reason) for one in updates.skipped]
    skipped += _left_behind(updates, source, target, planned)
    widths = _unequal_widths(landings, source, target)
    ladder = build_ladder(spec, pair.facts(equal_shapes=not widths, evaluation=ref.evaluation is not None))
    refusal = None if landings else f"no module of this adapter has a place in {target.name}"
    if widths and spec.needs.equal_widths:
        refusal = f"method {spec.method} needs equal widths: {widths}; use auto, cross-lora or interpolate"
    if (spec.needs.probes or spec.needs.maps) and not pair.tokenizers:
        refusal = (
            f"method {spec.method} needs a tokenizer.json in both bases, to run them on the same strings"
        )
    if not refusal and not ladder.rungs:
        refusal = "no method serves: " + "; ".join(f"{one.method}: {one.reason}" for one in ladder.left_out)
    if refusal:
        return PlannedItem(ref, planned.base, (), tuple(skipped), refusal, Ladder(()))
    return PlannedItem(ref, planned.base, landings, tuple(skipped), None, ladder)


def _left_behind(
    updates: RoleUpdates, source: BaseModel, target: BaseModel, planned: PlannedTarget
) -> Iterable[Skipped]:
    used = set(planned.layer_map)
    for layer, role in sorted(updates.updates):
        module = source.linear(layer, role).module
        if role not in target.roles:
            yield Skipped(module, f"{target.name} has no {role} projection")
        elif layer not in used:
            yield Skipped(
                module, f"no layer of {target.name} ({target.layers} layers) is mapped to layer {layer}"
            )


def _unequal_widths(landings: tuple[Landing, ...], source: BaseModel, target: BaseModel) -> str:
    """The first module that has another shape in the target, in words; empty if none has."""
    for one in landings:
        ours, theirs = source.linear(one.source_layer, one.role), target.linear(one.target_layer, one.role)
        if (ours.d_out, ours.d_in) != (theirs.d_out, theirs.d_in):
            return (
                f"{ours.module} is {ours.d_out}x{ours.d_in} in {source.name}, "
                f"{theirs.module} is {theirs.d_out}x{theirs.d_in} in {target.name}"
            )
    return ""
