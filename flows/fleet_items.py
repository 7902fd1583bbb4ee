"""One item of a fleet, an adapter to a target: its task runs, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prefect import tags
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture

from cross_lora_core.migration import FactorSource, ItemOutcome, Plan
from flows.base_groups import GroupFutures, factors_of, inputs_of
from flows.progress import current_listener, watched
from tasks.plan_migration import PreparedItem
from tasks.project_adapter import project_group
from tasks.publish_adapter import publish_adapter
from tasks.register_outcome import register_failure
from tasks.validate_adapter import validate_adapter

__all__ = ["ItemRun", "announce_items", "settle_item", "submit_item"]

_Future = PrefectFuture[Any]


@dataclass(frozen=True)
class ItemRun:
    """One item on its way: the task runs it waits for, and its own in order, validation last."""

    prepared: PreparedItem
    awaited: tuple[_Future, ...]
    own: tuple[_Future, ...]


def announce_items(plan: Plan, items: Sequence[PreparedItem]) -> None:
    """Tell the current listener how many task runs the items will be."""
    groups = [plan.target_of(item.planned).groups for item in items]
    landing = [
        sum(bool(item.planned.landings_in(group)) for group in of_target)
        for item, of_target in zip(items, groups, strict=True)
    ]
    for stage, count in (("project", sum(landing)), ("publish", len(items)), ("validate", len(items))):
        current_listener().expect(stage, count)


def submit_item(plan: Plan, item: PreparedItem, shared: GroupFutures) -> ItemRun:
    """Submit an item's projections, its publication and its validation."""
    planned, target = item.planned, plan.target_of(item.planned)
    own = replace(
        plan, items=(planned,), targets=(target,)
    )  # a task of a large fleet carries its own item only
    inputs = {group: inputs_of(plan, target, group, shared) for group in target.groups}
    with tags(f"adapter:{planned.adapter.name}", f"target:{planned.target.name}"):
        projected = [
            watched(
                "project",
                project_group.submit(
                    plan.source, planned, group, plan.spec, FactorSource.of(plan, target, group),
                    return_state=False, wait_for=inputs[group],
                ),
            )
            for group in target.groups
            if planned.landings_in(group)
        ]  # fmt: skip
        publishing = publish_adapter.submit(own, planned, return_state=False, wait_for=projected)
        published = watched("publish", publishing)
        validated = watched("validate", validate_adapter.submit(own, item, published, return_state=False))
    awaited = [
        future
        for group in target.groups
        for future in (*factors_of(plan, target, group, shared), *inputs[group])
    ]
    return ItemRun(item, tuple(awaited), (*projected, published, validated))


def settle_item(run: ItemRun) -> ItemOutcome:
    """Wait for an item; if it broke, register why, naming the first step that did."""
    validated = run.own[-1]
    validated.wait()
    if validated.state.is_completed():
        outcome: ItemOutcome = validated.result()
        return outcome
    return register_failure(run.prepared, _first_failure([*run.awaited, *run.own]))


def _first_failure(steps: Iterable[_Future]) -> str:
    for step in steps:
        step.wait()
        state: State[Any] = step.state
        if state.is_failed() or state.is_crashed() or state.is_cancelled():
            error = state.result(raise_on_failure=False)
            return f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(state.message)
    return "the task run did not finish; run the same migration again"
