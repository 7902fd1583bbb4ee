"""Making a plan: every adapter's shapes are read, and what happens to each module is decided."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from cross_lora_core.adapters import Adapter, RoleUpdates, read_adapter, updates_by_role
from cross_lora_core.errors import AdapterRefused
from cross_lora_core.migration.ladder import Ladder, PairFacts, build_ladder
from cross_lora_core.migration.landings import Landing
from cross_lora_core.migration.methods import Method
from cross_lora_core.migration.plan import Plan, PlannedItem, PlannedTarget, Skipped
from cross_lora_core.migration.refs import TOKENIZER_FILE, AdapterCandidate, AdapterRef, base_ref
from cross_lora_core.migration.similarity import BaseSimilarity, base_similarity
from cross_lora_core.migration.spec import TransferSpec
from cross_lora_core.models import BaseModel, layer_groups, map_layers

__all__ = ["make_plan"]


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


def make_plan(
    source: BaseModel,
    targets: Sequence[BaseModel],
    candidates: Iterable[AdapterCandidate],
    spec: TransferSpec,
    group_bytes: int,
    similarity: Callable[[BaseModel, BaseModel], BaseSimilarity] = base_similarity,
    readers: int = 1,
) -> Plan:
    """Read every adapter's shapes and decide what happens to each of its modules.

    Args:
        source: the base the adapters were trained on.
        targets: the bases to move them to.
        candidates: the adapters, not read yet; a bad one becomes a refused item, never an exception.
        spec: how updates are carried over.
        group_bytes: upper bound of a layer group's factors, in bytes.
        similarity: of two bases; asked for where the method is `auto` or begins with another's updates.
        readers: adapters that are read at once, each of which is in memory meanwhile.
    """
    planned = tuple(_planned_target(source, target, spec, group_bytes) for target in targets)
    asked = spec.method is Method.AUTO or spec.needs.training
    pairs = [
        _Pair(source, target, one, similarity(source, target) if asked else None)
        for target, one in zip(targets, planned, strict=True)
    ]
    seen: dict[Any, Any] = {}
    with ThreadPoolExecutor(readers) as pool:
        read = pool.map(lambda candidate: _items_of(candidate, source, pairs, spec), candidates)
        items = tuple(_sharing(item, seen) for some in read for item in some)
    groups = layer_groups(source, rank=spec.rank, byte_limit=group_bytes // 2)
    return Plan(base_ref(source), groups, planned, items, spec)


def _sharing(item: PlannedItem, seen: dict[Any, Any]) -> PlannedItem:
    """The item; what equals a part of an item before is that part itself, as most adapters look alike."""
    parts = {name: getattr(item, name) for name in ("target", "landings", "skipped", "ladder")}
    return replace(item, **{name: seen.setdefault(part, part) for name, part in parts.items()})


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
