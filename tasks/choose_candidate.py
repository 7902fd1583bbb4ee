"""Measure what the methods of a ladder made of an adapter, and settle the item with the best of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from prefect import get_run_logger, task

from cross_lora_core.evaluation import Choice, Decision, Evidence, Verdict, choose
from cross_lora_core.migration import TRAINING_OFF, ItemOutcome, Ladder, LeftOut, Method, Plan
from cross_lora_core.settings import load_settings
from tasks.device_slots import DEVICE_TAG
from tasks.plan_migration import PreparedItem
from tasks.publish_adapter import Published
from tasks.runtime import TASK_OPTIONS
from tasks.validate_adapter import gather_evidence, register_verdict

__all__ = ["Candidate", "choose_candidate", "measure_candidate"]


@dataclass(frozen=True)
class Candidate:
    """What one rung made: the plan of its transfer, its output and what was measured of it."""

    plan: Plan
    published: Published
    evidence: Evidence

    @property
    def name(self) -> str:
        """Its method, by which it is told from others."""
        return str(self.plan.spec.method)


@task(
    name="measure",
    task_run_name="measure {plan.spec.method} of {item.planned.adapter.name} on {item.planned.target.name}",
    tags=[DEVICE_TAG],
    **TASK_OPTIONS,
)
def measure_candidate(plan: Plan, item: PreparedItem, published: Published) -> Candidate:
    """Structure, function and losses of one rung's output; what was measured before is not measured again."""
    return Candidate(plan, published, gather_evidence(plan, item.planned, published))


@task(
    name="choose",
    task_run_name="choose for {item.planned.adapter.name} on {item.planned.target.name}",
    tags=["register"],
    **TASK_OPTIONS,
)
def choose_candidate(
    item: PreparedItem, candidates: Sequence[Candidate], broken: Mapping[str, str]
) -> ItemOutcome:
    """Take the candidate that the evidence is for, and register the verdict with the figures of all.

    Args:
        item: the item.
        candidates: what its rungs made, at least one.
        broken: rungs that made nothing by method, and why; the next run of the same request tries them again.
    """
    settings = load_settings()
    choice = choose(
        {one.name: one.evidence for one in candidates},
        confidence=settings.confidence,
        minimum_rows=settings.minimum_rows,
        seed=settings.seed,
    )
    taken = next((one for one in candidates if one.name == choice.name), candidates[0])
    decision = _decision(choice, item.planned.ladder, broken)
    get_run_logger().info("%s: %s", item.planned.adapter.name, decision.reason)
    return register_verdict(
        taken.plan,
        item,
        taken.published,
        taken.evidence,
        decision,
        usable=choice.usable,
        ladder=_told(item.planned.ladder, candidates, choice, broken),
    )


def _decision(choice: Choice, ladder: Ladder, broken: Mapping[str, str]) -> Decision:
    """The choice's, with what broke; where nothing passes, also with the method not allowed to try."""
    remarks = [f"{method} is left out, because it broke ({why})" for method, why in broken.items()]
    if choice.decision.verdict is Verdict.needs_retraining:
        forbidden = [one.method for one in ladder.left_out if one.reason == TRAINING_OFF]
        remarks += [f"{method} was not tried: {TRAINING_OFF}" for method in forbidden[:1]]
    return replace(choice.decision, reason="; ".join([choice.decision.reason, *remarks]))


def _told(
    ladder: Ladder, candidates: Sequence[Candidate], choice: Choice, broken: Mapping[str, str]
) -> dict[str, Any]:
    """What was tried, with its figures, and what was not or came to nothing, in plain values."""
    broke = [LeftOut(Method(method), f"it broke: {why}") for method, why in broken.items()]
    return {
        "chosen": choice.name if choice.usable else None,
        "confidence": choice.confidence,
        "candidates": [_figures(one, choice) for one in candidates],
        "left_out": [asdict(one) for one in (*ladder.left_out, *broke)],
        "broken": list(broken),
        "similarity": asdict(ladder.similarity) if ladder.similarity else None,
    }


def _figures(candidate: Candidate, choice: Choice) -> dict[str, Any]:
    landing = candidate.evidence.function.landing if candidate.evidence.function else None
    return choice.decisions[candidate.name].as_dict() | {
        "method": candidate.name,
        "modules_landed": landing.landed if landing else 0,
        "output": candidate.published.url,
        "sha256": candidate.published.sha256,
    }
