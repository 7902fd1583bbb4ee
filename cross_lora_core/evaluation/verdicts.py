"""From evidence to a verdict and one sentence that says why. Pure: no model, no file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from cross_lora_core.evaluation.function import FunctionCheck
from cross_lora_core.evaluation.statistics import Interval, paired_bootstrap

__all__ = ["PROMOTABLE", "Decision", "Evidence", "Losses", "Verdict", "decide"]


class Verdict(StrEnum):
    """What became of an adapter on its target."""

    copied = "copied"
    migrated = "migrated"
    no_effect = "no_effect"
    harmful = "harmful"
    needs_retraining = "needs_retraining"
    unverified = "unverified"
    refused = "refused"
    failed = "failed"


SHARE_OF_GAIN = 0.05
"""A change below this share of what the adapter gains on its own base is no effect, however certain."""

SHARE_OF_LOSS = 0.01
"""The same as a share of the target base's loss, where the adapter's own gain cannot be told from chance."""

PROMOTABLE = frozenset({Verdict.copied, Verdict.migrated})
"""Verdicts that may be promoted without a person naming them."""


@dataclass(frozen=True)
class Losses:
    """Losses by row, in nats per character, of one evaluation file.

    Attributes:
        target: the target base alone.
        migrated: with the migrated adapter.
        zero: with an adapter of zeros; must equal `target`.
        random: with a random update of the same norm in every module.
        source: the source base alone, if it was measured.
        source_adapter: the source base with the original adapter, likewise.
    """

    target: Sequence[float]
    migrated: Sequence[float]
    zero: Sequence[float]
    random: Sequence[float]
    source: Sequence[float] | None = None
    source_adapter: Sequence[float] | None = None

    def means(self) -> dict[str, float]:
        """Mean loss by label, of those that were measured."""
        labels = {
            "source base": self.source,
            "source adapter": self.source_adapter,
            "target base": self.target,
            "zero": self.zero,
            "random": self.random,
            "migrated": self.migrated,
        }
        return {label: sum(values) / len(values) for label, values in labels.items() if values}


@dataclass(frozen=True)
class Evidence:
    """Everything a verdict rests on.

    Attributes:
        problems: what the structure check found wrong.
        function: whether outputs change, from PEFT on the real target.
        losses: None without an evaluation file.
        copied: the method carried the update over unchanged.
        same_base: source and target have the same weights.
    """

    problems: Sequence[str]
    function: FunctionCheck | None
    losses: Losses | None
    copied: bool = False
    same_base: bool = False


@dataclass(frozen=True)
class Decision:
    """A verdict with its reason and the figures it rests on.

    Attributes:
        improvement: fall of the loss against the target base.
        over_random: fall against the random control.
        source_gain: fall the adapter brings on its own base.
        recovered: `improvement / source_gain`, where the gain is told from chance.
        floor: smallest change of the loss that counts for anything.
    """

    verdict: Verdict
    reason: str
    rows: int = 0
    means: Mapping[str, float] | None = None
    improvement: Interval | None = None
    over_random: Interval | None = None
    source_gain: Interval | None = None
    recovered: float | None = None
    floor: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"verdict": self.verdict.value}


def decide(evidence: Evidence, *, confidence: float = 0.99, minimum_rows: int = 8, seed: int = 0) -> Decision:
    """Judge the evidence.

    Args:
        evidence: what was measured.
        confidence: level of the intervals.
        minimum_rows: an evaluation file with fewer rows proves nothing.
        seed: of the bootstrap.
    """
    if evidence.problems:
        return Decision(Verdict.failed, "structure: " + "; ".join(evidence.problems))
    check = evidence.function
    if check is None or not check.landing.complete:
        return Decision(Verdict.failed, _landing_reason(check))
    undefined = _undefined(check, evidence.losses)
    if undefined:
        return Decision(Verdict.failed, f"{undefined} not finite: nothing can be told")
    if not check.changed:
        return Decision(Verdict.no_effect, "loads and changes nothing: no output moved on any probe text")
    if evidence.losses is None or len(evidence.losses.target) < minimum_rows:
        return _without_rows(evidence, minimum_rows)
    return _with_rows(evidence, evidence.losses, confidence, seed)


def _undefined(check: FunctionCheck, losses: Losses | None) -> str:
    """What was measured as NaN or infinity, which is neither a change nor none; empty if nothing was."""
    if not math.isfinite(check.largest_change):
        return "scores with the adapter are"
    undefined = [
        label for label, mean in (losses.means() if losses else {}).items() if not math.isfinite(mean)
    ]
    return f"losses of {', '.join(undefined)} are" if undefined else ""


def _landing_reason(check: FunctionCheck | None) -> str:
    if check is None:
        return "the adapter was never loaded on its target"
    landing = check.landing
    return (
        f"PEFT loaded {landing.landed} of {landing.expected} modules "
        f"and left {landing.untouched} of its own without weights"
    )


def _without_rows(evidence: Evidence, minimum_rows: int) -> Decision:
    if evidence.copied and evidence.same_base:
        reason = "source and target have the same weights, so the copied update is exact"
        return Decision(Verdict.copied, reason)
    rows = len(evidence.losses.target) if evidence.losses else 0
    why = f"only {rows} evaluation rows, {minimum_rows} are needed" if rows else "no evaluation file"
    reason = f"{why}: every module landed and outputs change, but nobody measured whether they improve"
    return Decision(Verdict.unverified, reason, rows=rows)


def _with_rows(evidence: Evidence, losses: Losses, confidence: float, seed: int) -> Decision:
    if list(losses.zero) != list(losses.target):
        reason = "the zero control differs from the base: the measurement is not to be trusted"
        return Decision(Verdict.failed, reason)

    def fall(before: Sequence[float], after: Sequence[float]) -> Interval:
        differences = [old - new for old, new in zip(before, after, strict=True)]
        return paired_bootstrap(differences, confidence=confidence, seed=seed)

    improvement, over_random = fall(losses.target, losses.migrated), fall(losses.random, losses.migrated)
    gain = fall(losses.source, losses.source_adapter) if losses.source and losses.source_adapter else None
    means = losses.means()
    gained = gain is not None and gain.low > 0
    recovered = improvement.mean / gain.mean if gain and gained else None
    floor = SHARE_OF_GAIN * gain.mean if gain and gained else SHARE_OF_LOSS * means["target base"]
    verdict = _judge(improvement, over_random, floor, copied=evidence.copied)
    return Decision(
        verdict=verdict,
        reason=_reason(verdict, improvement, over_random, floor, recovered, len(losses.target)),
        rows=len(losses.target),
        means=means,
        improvement=improvement,
        over_random=over_random,
        source_gain=gain,
        recovered=recovered,
        floor=floor,
    )


def _judge(improvement: Interval, over_random: Interval, floor: float, *, copied: bool) -> Verdict:
    """Surely more than the smallest change that matters, and surely more than a random update.

    A fleet is judged a thousand adapters at a time: a rule that lets chance through
    once in forty would call dozens of empty adapters migrated.
    """
    if improvement.high < 0 and -improvement.mean >= floor:
        return Verdict.harmful
    if improvement.low > floor and over_random.low > 0:
        return Verdict.copied if copied else Verdict.migrated
    return Verdict.no_effect


def _reason(
    verdict: Verdict,
    improvement: Interval,
    over_random: Interval,
    floor: float,
    recovered: float | None,
    rows: int,
) -> str:
    direction = "falls" if improvement.mean >= 0 else "rises"
    change = (
        f"the loss {direction} by {abs(improvement.mean):.4f} nats per character "
        f"({-improvement.high:+.4f} … {-improvement.low:+.4f}, {rows} rows)"
    )
    share = f", {recovered:.1%} of what the adapter gains on its own base" if recovered is not None else ""
    if verdict is not Verdict.no_effect:
        return change + share
    if improvement.low <= 0 <= improvement.high:
        return f"{change}, which cannot be told from chance"
    if improvement.low <= floor:
        return f"{change}{share}: not surely more than {floor:.4f}, the least that matters"
    return f"{change}, but no more than with a random update of the same size ({over_random.mean:+.4f})"
