"""Migrate a fleet: plan, factorize both bases once, project every adapter, publish, validate, register.

The flow holds order and failure policy. One adapter that breaks fails alone;
whatever is stored already is not computed again, so the same request run a
second time resumes or finds everything done.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from prefect import flow, runtime
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture

from cross_lora_core.migration import (
    FactorSource,
    ItemOutcome,
    MigrationOutcome,
    MigrationRequest,
    Plan,
    PlannedTarget,
)
from flows.progress import current_listener
from flows.task_runners import RUNNER
from tasks.align_bases import align_group
from tasks.factorize_base import factorize_group
from tasks.finish_migration import finish_migration
from tasks.plan_migration import PreparedItem, PreparedMigration, plan_migration
from tasks.project_adapter import project_group
from tasks.publish_adapter import publish_adapter
from tasks.register_outcome import register_failure
from tasks.validate_adapter import validate_adapter

__all__ = ["migrate_fleet", "start_migration"]

_Future = PrefectFuture[Any]
_Job = TypeVar("_Job")
_GroupFutures = dict[tuple[str, int], _Future]


@dataclass(frozen=True)
class _ItemRun:
    """One item on its way, with the task runs whose failure would be its failure, in order."""

    prepared: PreparedItem
    steps: tuple[_Future, ...]
    validated: _Future


def _run_name() -> str:
    return MigrationRequest.model_validate(runtime.flow_run.parameters["request"]).title


@flow(name="migrate-fleet", flow_run_name=_run_name, task_runner=RUNNER, persist_result=False)
def migrate_fleet(request: MigrationRequest) -> MigrationOutcome:
    """Move adapters of one base model to its successors and prove for each what survived.

    Args:
        request: source, targets, adapters and method.

    Returns:
        One outcome per adapter and target. Items that failed or were refused are among them;
        they do not fail the flow run.
    """
    prepared = plan_migration(request)
    pending = [item for item in prepared.items if item.outcome is None]
    runs = _submit_all(prepared, pending)
    settled = {run.prepared.item_id: _settle(run) for run in runs}
    outcomes = [item.outcome or settled[item.item_id] for item in prepared.items]
    return finish_migration(prepared, outcomes)


def start_migration(request: MigrationRequest) -> MigrationOutcome:
    """Run the flow here, with the task runner of the settings."""
    return migrate_fleet(request)


def _watched(stage: str, future: _Future) -> _Future:
    listener = current_listener()
    listener.expect(stage, 1)
    future.add_done_callback(lambda _: listener.advance(stage))
    return future


def _submit_all(prepared: PreparedMigration, pending: list[PreparedItem]) -> list[_ItemRun]:
    plan = prepared.plan
    wanted = {item.planned.target.digest for item in pending}
    factors = _submit_factors(plan, wanted)
    aligned = _submit_alignments(plan, wanted, factors)
    return [_submit_item(prepared, item, factors | aligned) for item in pending]


def _submit_factors(plan: Plan, wanted: set[str]) -> _GroupFutures:
    """One task run per (base, layer group) the method reads."""
    jobs = [(plan.source, group) for group in plan.source_groups if plan.spec.needs.source_factors and wanted]
    jobs += [
        (target.base, group)
        for target in plan.targets
        for group in target.groups
        if plan.spec.needs.target_factors and target.base.digest in wanted
    ]
    return {
        (base.digest, group.index): _watched(
            "factorize", factorize_group.submit(base, group, plan.spec.factors)
        )
        for base, group in _from_anywhere(list(dict.fromkeys(jobs)))
    }


def _from_anywhere(jobs: Sequence[_Job]) -> list[_Job]:
    """The jobs from a random one on: two fleets that share them do not follow each other step by step."""
    start = random.randrange(len(jobs)) if jobs else 0  # noqa: S311
    return [*jobs[start:], *jobs[:start]]


def _submit_alignments(plan: Plan, wanted: set[str], factors: _GroupFutures) -> _GroupFutures:
    """One task run per (pair of bases, target layer group)."""
    if not plan.spec.needs.alignment:
        return {}
    return {
        ("align " + target.base.digest, group.index): _watched(
            "align",
            align_group.submit(
                plan.source, target, group, plan.spec, FactorSource.of(plan, target, group),
                return_state=False, wait_for=_factors_of(plan, target, group.index, factors),
            ),
        )
        for target in plan.targets
        if target.base.digest in wanted
        for group in target.groups
    }  # fmt: skip


def _factors_of(plan: Plan, target: PlannedTarget, index: int, factors: _GroupFutures) -> list[_Future]:
    source = FactorSource.of(plan, target, target.groups[index]).source
    keys = [(plan.source.digest, one.group.index) for one in source]
    return [factors[key] for key in [*keys, (target.base.digest, index)] if key in factors]


def _submit_item(prepared: PreparedMigration, item: PreparedItem, groups: _GroupFutures) -> _ItemRun:
    plan = prepared.plan
    target = plan.target_of(item.planned)
    projected = [
        _watched(
            "project",
            project_group.submit(
                plan.source, item.planned, group, plan.spec, FactorSource.of(plan, target, group),
                return_state=False, wait_for=_inputs_of(plan, target, group.index, groups),
            ),
        )
        for group in target.groups
        if item.planned.landings_in(group)
    ]  # fmt: skip
    published = _watched(
        "publish", publish_adapter.submit(plan, item.planned, return_state=False, wait_for=projected)
    )
    validated = _watched("validate", validate_adapter.submit(plan, item, published, return_state=False))
    inputs = [future for group in target.groups for future in _inputs_of(plan, target, group.index, groups)]
    return _ItemRun(item, (*inputs, *projected, published, validated), validated)


def _inputs_of(plan: Plan, target: PlannedTarget, index: int, groups: _GroupFutures) -> list[_Future]:
    aligned = groups.get(("align " + target.base.digest, index))
    return [aligned] if aligned else _factors_of(plan, target, index, groups)


def _settle(run: _ItemRun) -> ItemOutcome:
    """Wait for an item; if it broke, register why, naming the first step that did."""
    run.validated.wait()
    if run.validated.state.is_completed():
        outcome: ItemOutcome = run.validated.result()
        return outcome
    return register_failure(run.prepared, _first_failure(run.steps))


def _first_failure(steps: Iterable[_Future]) -> str:
    for step in steps:
        step.wait()
        state: State[Any] = step.state
        if state.is_failed() or state.is_crashed() or state.is_cancelled():
            error = state.result(raise_on_failure=False)
            return f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(state.message)
    return "the task run did not finish; run the same migration again"
