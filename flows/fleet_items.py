"""One item of a fleet, an adapter to a target: its task runs, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture

from cross_lora_core.migration import FactorSource, ItemOutcome, Method, Plan, PlannedItem, TransferSpec
from cross_lora_core.models import LayerGroup
from flows.base_groups import GroupFutures, factors_of, inputs_of
from flows.progress import current_listener, watched
from flows.task_parameters import result_of, whole
from tasks.choose_candidate import Candidate, choose_candidate, measure_candidate
from tasks.fit_effect import fit_group
from tasks.plan_migration import PreparedItem
from tasks.project_adapter import project_group
from tasks.publish_adapter import publish_adapter
from tasks.refine_adapter import refine_adapter
from tasks.register_outcome import register_failure
from tasks.sample_probes import sample_probes
from tasks.validate_adapter import validate_adapter

__all__ = ["ItemRun", "announce_items", "count_task_runs", "settle_item", "submit_item"]

_Future = PrefectFuture[Any]
_Inputs = Mapping[LayerGroup, list[_Future]]
_Neighbours = tuple[PlannedItem, ...] | None
_Made = dict[TransferSpec, list[_Future]]
"""Task runs that make an item's updates, by the transfer they are for."""


@dataclass(frozen=True)
class ItemRun:
    """One item on its way.

    Attributes:
        prepared: the item.
        rungs: its transfers; the last task run of each measures it, or settles the item if one was asked for.
        chosen: whether the item is settled by a choice between them.
    """

    prepared: PreparedItem
    rungs: tuple[_RungRun, ...]
    chosen: bool

    @property
    def own(self) -> tuple[_Future, ...]:
        """Its task runs so far."""
        return tuple(step for rung in self.rungs for step in rung.steps)


def announce_items(plan: Plan, items: Sequence[PreparedItem]) -> None:
    """Tell the current listener how many task runs the items will be."""
    for stage, count in _task_runs(plan, [item.planned for item in items]).items():
        current_listener().expect(stage, count)


def count_task_runs(plan: Plan, item: PreparedItem) -> int:
    """How many task runs an item will be."""
    return sum(_task_runs(plan, [item.planned]).values())


def _task_runs(plan: Plan, items: Sequence[PlannedItem]) -> dict[str, int]:
    """Task runs of some items, by stage."""
    rungs = [(planned, spec) for planned in items for spec in planned.ladder.rungs]
    made = [(planned, spec) for planned in items for spec in _transfers_of(planned)]
    refined = sum(spec.needs.training for _, spec in made)
    fitted = [planned for planned, spec in made if spec.needs.probes and not spec.needs.training]
    return {
        "sample": len(fitted) + refined,
        "fit": sum(len(plan.target_of(planned).groups) for planned in fitted),
        "refine": refined,
        "project": sum(_projections(plan, planned) for planned, spec in made if not spec.needs.probes),
        "publish": len(rungs),
        "measure": len(rungs) if plan.spec.method is Method.AUTO else 0,
        "validate": len(items),
    }


def _transfers_of(planned: PlannedItem) -> tuple[TransferSpec, ...]:
    """Every transfer whose updates are made for an item, those that a training begins with among them."""
    rungs = planned.ladder.rungs
    return tuple(dict.fromkeys((*rungs, *(one.start for one in rungs if one.needs.training))))


def _projections(plan: Plan, planned: PlannedItem) -> int:
    return sum(bool(planned.landings_in(group)) for group in plan.target_of(planned).groups)


def submit_item(
    plan: Plan, item: PreparedItem, shared: GroupFutures, neighbours: _Neighbours = None
) -> ItemRun:
    """Submit what an item's ladder says: every rung's transfer, and how the item is settled.

    A task of a large fleet carries its own item only, and the few that it may project together with it.
    """
    planned = item.planned
    own = replace(plan, items=(planned,), targets=(plan.target_of(planned),))
    chosen = plan.spec.method is Method.AUTO
    made: _Made = {}
    rungs = [_submit_rung(one, planned, shared, made, neighbours) for one in own.rung_plans]
    judged = [_submit_measurement(item, one) if chosen else _submit_verdict(item, one) for one in rungs]
    return ItemRun(item, tuple(judged), chosen)


@dataclass(frozen=True)
class _RungRun:
    """One transfer of an item on its way: what it waits for, and its own task runs in order."""

    plan: Plan
    awaited: tuple[_Future, ...]
    steps: tuple[_Future, ...]


def _submit_rung(
    plan: Plan, planned: PlannedItem, shared: GroupFutures, made: _Made, neighbours: _Neighbours
) -> _RungRun:
    """Submit what makes a transfer's updates, and its publication."""
    (target,) = plan.targets
    inputs = {group: inputs_of(plan, target, group, shared) for group in target.groups}
    updates = _submit_updates(plan, planned, inputs, made, neighbours)
    publishing = publish_adapter.submit(whole(plan), whole(planned), return_state=False, wait_for=updates)
    published = watched("publish", publishing)
    awaited = [
        future
        for group in target.groups
        for future in (*factors_of(plan, target, group, shared), *inputs[group])
    ]
    return _RungRun(plan, tuple(awaited), (*updates, published))


def _submit_updates(
    plan: Plan, planned: PlannedItem, inputs: _Inputs, made: _Made, neighbours: _Neighbours
) -> list[_Future]:
    """What makes a transfer's updates; what another rung of the item has submitted is not submitted again."""
    if plan.spec not in made:
        if plan.spec.needs.training:
            steps = _submit_refinement(plan, planned, inputs, made, neighbours)
        elif plan.spec.needs.probes:
            steps = _submit_fits(plan, planned, inputs)
        else:
            steps = _submit_projections(plan, planned, inputs, neighbours)
        made[plan.spec] = steps
    return made[plan.spec]


def _submit_projections(
    plan: Plan, planned: PlannedItem, inputs: _Inputs, neighbours: _Neighbours
) -> list[_Future]:
    """Every layer group by itself, once what it reads is there."""
    (target,) = plan.targets
    company = neighbours and tuple(one for one in neighbours if plan.spec in _transfers_of(one))
    return [
        watched(
            "project",
            project_group.submit(
                plan.source, whole(planned), group, whole(plan.spec),
                whole(FactorSource.of(plan, target, group)), whole(company),
                return_state=False, wait_for=inputs[group],
            ),
        )
        for group in target.groups
        if planned.landings_in(group)
    ]  # fmt: skip


def _submit_fits(plan: Plan, planned: PlannedItem, inputs: _Inputs) -> list[_Future]:
    """The probes, then layer group after layer group from the bottom: each builds on those below."""
    (target,) = plan.targets
    sampling = sample_probes.submit(plan.source, planned.adapter, plan.spec.probes, return_state=False)
    steps: list[_Future] = [watched("sample", sampling)]
    for group in target.groups:
        awaited = [steps[-1], *inputs[group]]
        fitting = fit_group.submit(whole(plan), whole(planned), group, return_state=False, wait_for=awaited)
        steps.append(watched("fit", fitting))
    return steps


def _submit_refinement(
    plan: Plan, planned: PlannedItem, inputs: _Inputs, made: _Made, neighbours: _Neighbours
) -> list[_Future]:
    """What training begins with, strings of its own, then the training of the whole target."""
    start = replace(plan, spec=plan.spec.start)
    begun = _submit_updates(start, planned, inputs, made, neighbours)
    sampling = sample_probes.submit(
        plan.source, planned.adapter, plan.spec.strings, return_state=False, wait_for=begun
    )
    sampled = watched("sample", sampling)
    training = refine_adapter.submit(
        whole(plan), whole(start), whole(planned), return_state=False, wait_for=[sampled]
    )
    return [*begun, sampled, watched("refine", training)]


def _submit_verdict(item: PreparedItem, rung: _RungRun) -> _RungRun:
    """The one transfer that was asked for is validated and judged."""
    validating = validate_adapter.submit(
        whole(rung.plan), whole(item), result_of(rung.steps[-1]), return_state=False
    )
    return replace(rung, steps=(*rung.steps, watched("validate", validating)))


def _submit_measurement(item: PreparedItem, rung: _RungRun) -> _RungRun:
    """One transfer of several is measured, to be chosen from."""
    measuring = measure_candidate.submit(
        whole(rung.plan), whole(item), result_of(rung.steps[-1]), return_state=False
    )
    return replace(rung, steps=(*rung.steps, watched("measure", measuring)))


def settle_item(run: ItemRun) -> ItemOutcome:
    """Wait for an item, and settle it with what its transfers came to.

    Of several, those that broke are left out; if all did, the item failed, for the first reasons there were.
    """
    failures = [_failure([*one.awaited, *one.steps]) for one in run.rungs]
    broken = {str(rung.plan.spec.method): why for rung, why in zip(run.rungs, failures, strict=True) if why}
    results = [rung.steps[-1].result() for rung, why in zip(run.rungs, failures, strict=True) if not why]
    if not results:
        if run.chosen:
            current_listener().advance("validate")  # no task run will: there is nothing to choose from
        return register_failure(run.prepared, _told(broken))
    if not run.chosen:
        outcome: ItemOutcome = results[0]
        return outcome
    return _settle_choice(run.prepared, results, broken)


def _settle_choice(
    item: PreparedItem, candidates: Sequence[Candidate], broken: Mapping[str, str]
) -> ItemOutcome:
    choosing = watched(
        "validate", choose_candidate.submit(whole(item), candidates, broken, return_state=False)
    )
    why = _failure([choosing])
    if why:
        return register_failure(item, why)
    outcome: ItemOutcome = choosing.result()
    return outcome


def _told(broken: Mapping[str, str]) -> str:
    """Why every transfer broke; the reason alone where one was tried or all broke for the same."""
    if len(set(broken.values())) == 1:
        return next(iter(broken.values()))
    return "; ".join(f"{method}: {why}" for method, why in broken.items())


def _failure(steps: Sequence[_Future]) -> str | None:
    """Why the last of some task runs did not complete, by the first of them that broke; None if it did."""
    steps[-1].wait()
    return None if steps[-1].state.is_completed() else _first_failure(steps)


def _first_failure(steps: Iterable[_Future]) -> str:
    for step in steps:
        step.wait()
        state: State[Any] = step.state
        if state.is_failed() or state.is_crashed() or state.is_cancelled():
            error = state.result(raise_on_failure=False)
            return f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(state.message)
    return "the task run did not finish; run the same migration again"
