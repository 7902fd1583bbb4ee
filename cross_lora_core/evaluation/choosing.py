"""From the evidence on several candidates to one verdict, and which candidate it takes. Pure, as `decide` is.

Who tries several methods gives chance several tries. The intervals are therefore
widened by Bonferroni's correction: with n candidates each is judged at
`1 - (1 - confidence) / n`, so that all of them together err no more often than one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cross_lora_core.evaluation.verdicts import PROMOTABLE, Decision, Evidence, Verdict, decide

__all__ = ["Choice", "choose"]


@dataclass(frozen=True)
class Choice:
    """What several candidates come to.

    Attributes:
        name: the candidate taken, or the best one where none is good enough; None if there is none.
        usable: whether that candidate may be kept as the item's output.
        decision: the item's verdict and why, with the figures of that candidate.
        decisions: of every candidate by its name, at the corrected confidence.
        confidence: that each was judged at.
    """

    name: str | None
    usable: bool
    decision: Decision
    decisions: Mapping[str, Decision]
    confidence: float


def choose(
    candidates: Mapping[str, Evidence], *, confidence: float = 0.99, minimum_rows: int = 8, seed: int = 0
) -> Choice:
    """Judge every candidate and take the best that passes.

    Args:
        candidates: evidence by name, in the order of preference.
        confidence: that all intervals hold together.
        minimum_rows: an evaluation file with fewer rows proves nothing.
        seed: of the bootstrap.

    Raises:
        ValueError: no candidates.
    """
    if not candidates:
        raise ValueError("expected at least one candidate")
    corrected = 1 - (1 - confidence) / len(candidates)
    decisions = {
        name: decide(one, confidence=corrected, minimum_rows=minimum_rows, seed=seed)
        for name, one in candidates.items()
    }
    name, usable, decision = _chosen(decisions)
    return Choice(name, usable, decision, decisions, corrected)


def _chosen(decisions: Mapping[str, Decision]) -> tuple[str | None, bool, Decision]:
    passing = [name for name, one in decisions.items() if one.verdict in PROMOTABLE]
    if passing:
        name = _best(passing, decisions)
        return name, True, replace(decisions[name], reason=_why(name, decisions))
    measured = [name for name, one in decisions.items() if one.improvement is not None]
    if measured:
        return _none_passes(measured, decisions)
    sound = [name for name, one in decisions.items() if one.verdict is not Verdict.failed]
    moving = [name for name in sound if decisions[name].verdict is not Verdict.no_effect]
    for name in (*moving, *sound):
        return name, True, decisions[name]
    return None, False, next(iter(decisions.values()))


def _best(names: Sequence[str], decisions: Mapping[str, Decision]) -> str:
    """The largest mean improvement; the earlier one of equals, and of those that were not measured."""
    return max(names, key=lambda name: _improvement(decisions[name]))


def _improvement(decision: Decision) -> float:
    return decision.improvement.mean if decision.improvement else 0.0


def _none_passes(names: Sequence[str], decisions: Mapping[str, Decision]) -> tuple[str, bool, Decision]:
    """The best of those that do no certain harm, however small; else the least bad one, which is not kept."""
    harmless = [name for name in names if not _surely_worse(decisions[name])]
    name = _best(harmless or names, decisions)
    decision = replace(
        decisions[name], verdict=Verdict.needs_retraining, reason=_why_not(name, bool(harmless), decisions)
    )
    return name, bool(harmless), decision


def _surely_worse(decision: Decision) -> bool:
    return decision.improvement is not None and decision.improvement.high < 0


def _why(name: str, decisions: Mapping[str, Decision]) -> str:
    tried = f", the best of {len(decisions)} methods tried" if len(decisions) > 1 else ""
    return f"by {name}{tried}: {decisions[name].reason}"


def _why_not(name: str, harmless: bool, decisions: Mapping[str, Decision]) -> str:
    tried = ", ".join(decisions)
    best = decisions[name]
    if harmless:
        told = f"none of the methods tried ({tried}) is surely better than the controls; best {name}"
    else:
        told = f"every method tried ({tried}) surely does harm, so nothing is kept; least {name}"
    gain = best.source_gain
    idle = (
        "; what the adapter gains on its own base cannot be told from chance either"
        if gain is not None and gain.low <= 0
        else ""
    )
    return f"{told}: {best.reason}{idle}"
